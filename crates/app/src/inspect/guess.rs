//! Guesses which column contains which field, from its name and from whether its values can be read as that field.

use super::sample::{Cell, Column, Sample};
use crate::config::{FlagSetting, Value};
use crate::pattern::literally;
use adtally_model::time::{EVENT_TIME_END_MS, EVENT_TIME_MIN_MS, parse_rfc3339};
use adtally_model::{Country, ip};
use adtally_source::{FormatChoice, TimestampUnit};
use serde::Serialize;
use std::collections::HashSet;

/// Maximum lengths of values of these fields, in bytes.
const USER_ID_BYTES_MAX: usize = 128;
const CLICK_ID_BYTES_MAX: usize = 64;

/// Minimum share of a column's values that must be readable as a field to propose the column.
const FIT_MIN: f64 = 0.5;

/// Score of the first name in the list; each later name scores one less.
const NAME_SCORE: f64 = 100.0;

/// Maximum score of characteristic values, if the name does not match.
const VALUE_SCORE: f64 = 40.0;

/// A field of a click, with rules to recognise it.
struct Field {
    name: &'static str,
    required: bool,
    /// Its usual names in logs, the most likely first; compared without case and punctuation.
    aliases: &'static [&'static str],
    /// Whether a value can be read as this field.
    fits: fn(&Cell) -> bool,
    /// Whether values alone identify the field, whatever the column's name.
    telling: bool,
}

const FIELDS: [Field; 6] = [
    Field {
        name: "click_timestamp",
        required: true,
        aliases: &[
            "clicktimestamp",
            "timestamp",
            "eventtime",
            "clicktime",
            "ts",
            "time",
            "eventtimestamp",
            "datetime",
            "clickedat",
            "occurredat",
            "createdat",
            "at",
            "date",
            "epoch",
            "timems",
            "tsms",
            "t",
        ],
        fits: is_time,
        telling: true,
    },
    Field {
        name: "ad_id",
        required: true,
        aliases: &[
            "adid",
            "ad",
            "advertid",
            "advertisementid",
            "creativeid",
            "bannerid",
            "creative",
            "campaignid",
            "campaign",
        ],
        fits: is_ad,
        telling: false,
    },
    Field {
        name: "user_id",
        required: true,
        aliases: &[
            "userid",
            "user",
            "uid",
            "visitorid",
            "visitor",
            "cookieid",
            "cookie",
            "deviceid",
            "device",
            "clientid",
            "customerid",
            "accountid",
            "username",
        ],
        fits: is_user,
        telling: false,
    },
    Field {
        name: "ip",
        required: true,
        aliases: &[
            "ip",
            "ipaddress",
            "clientip",
            "remoteaddr",
            "remoteip",
            "userip",
            "sourceip",
            "srcip",
            "ipaddr",
            "remoteaddress",
            "clientaddress",
            "addr",
            "address",
            "xforwardedfor",
            "host",
        ],
        fits: |cell| matches!(cell, Cell::Text(text) if ip::parse(text.as_bytes()).is_some()),
        telling: true,
    },
    Field {
        name: "country",
        required: false,
        aliases: &["country", "countrycode", "geo", "geocountry", "cc", "ipcountry", "countryiso", "iso2", "location"],
        fits: |cell| matches!(cell, Cell::Text(text) if Country::parse_known(text.as_bytes()).is_some()),
        telling: true,
    },
    Field {
        name: "click_id",
        required: false,
        aliases: &["clickid", "eventid", "id", "uuid", "requestid", "gclid", "messageid", "reqid", "guid", "rid"],
        fits: |cell| matches!(cell, Cell::Text(text) if (1..=CLICK_ID_BYTES_MAX).contains(&text.len())),
        telling: false,
    },
];

/// The guessed properties of a file.
#[derive(Clone, PartialEq, Debug)]
pub struct Guess {
    /// The format of lines; `Auto` if it is unknown.
    pub format: FormatChoice,
    /// The delimiter of CSV columns.
    pub csv_delimiter: u8,
    /// Unit of numeric timestamps.
    pub timestamp_unit: TimestampUnit,
    /// The six fields in order.
    pub fields: Vec<FieldGuess>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The column that seems to contain a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FieldGuess {
    /// The field: `ad_id`.
    pub field: &'static str,
    /// The JSON key or CSV column; `None` if no column fits.
    pub name: Option<String>,
    /// An example value.
    pub sample: Option<String>,
}

/// Guesses the properties of a file from its first lines.
pub fn guess(text: &[u8]) -> Guess {
    let Sample { format, delimiter, columns, mut notes } = Sample::of(text);
    let assigned = assign(&columns);
    let fields: Vec<_> = FIELDS
        .iter()
        .zip(&assigned)
        .map(|(field, at)| {
            let column = at.map(|at| &columns[at]);
            let sample = column.and_then(|column| column.values.first()).map(|cell| cell.text().to_owned());
            FieldGuess { field: field.name, name: column.map(|column| column.name.clone()), sample }
        })
        .collect();
    if !columns.is_empty() {
        let missing = FIELDS.iter().zip(&assigned).filter(|(field, at)| field.required && at.is_none());
        notes.extend(missing.map(|(field, _)| format!("no field looks like {}, which every click needs", field.name)));
    }
    let times = assigned[0].map_or(&[][..], |at| &columns[at].values);
    let timestamp_unit = unit(times);
    Guess { format, csv_delimiter: delimiter, timestamp_unit, fields, notes }
}

/// Assigns a column to each field. Each column is used once, the highest scores first.
fn assign(columns: &[Column]) -> [Option<usize>; FIELDS.len()] {
    let mut pairs = Vec::new();
    for (field_at, field) in FIELDS.iter().enumerate() {
        for (column_at, column) in columns.iter().enumerate() {
            if let Some(score) = score(field, column) {
                pairs.push((score, field_at, column_at));
            }
        }
    }
    // For equal scores, the earlier column and field come first.
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.2, a.1).cmp(&(b.2, b.1))));
    let mut assigned = [None; FIELDS.len()];
    for (_, field_at, column_at) in pairs {
        if assigned[field_at].is_none() && !assigned.contains(&Some(column_at)) {
            assigned[field_at] = Some(column_at);
        }
    }
    assigned
}

/// How well a column fits a field; `None` if it does not.
fn score(field: &Field, column: &Column) -> Option<f64> {
    let plain: String =
        column.name.chars().filter(|letter| letter.is_alphanumeric()).collect::<String>().to_lowercase();
    let by_name = field.aliases.iter().position(|alias| *alias == plain).map(|place| NAME_SCORE - place as f64);
    if column.values.is_empty() {
        // A column that is always empty can only be recognised by the field's own name.
        return (column.name == field.name).then_some(NAME_SCORE);
    }
    let fitting = column.values.iter().filter(|cell| (field.fits)(cell)).count();
    let fit = fitting as f64 / column.values.len() as f64;
    if column.name == field.name {
        return Some(2.0 * NAME_SCORE); // The own name outweighs all values; the verdicts report wrong ones.
    }
    if fit < FIT_MIN {
        return None;
    }
    if field.name == "click_id" {
        // An id that repeats more often than duplicates is not unique: it would merge many clicks into one.
        let distinct: HashSet<&Cell> = column.values.iter().collect();
        if distinct.len() * 10 < column.values.len() * 9 {
            return None;
        }
    }
    match by_name {
        Some(score) => Some(score + fit),
        None if field.telling => Some(VALUE_SCORE * fit),
        None => None,
    }
}

fn is_time(cell: &Cell) -> bool {
    let is_date = || matches!(cell, Cell::Text(text) if parse_rfc3339(text.as_bytes()).is_some());
    integer_of(cell).is_some_and(|number| unit_of(number).is_some()) || is_date()
}

fn is_ad(cell: &Cell) -> bool {
    match cell {
        Cell::Integer(digits) => digits.parse::<i64>().is_ok_and(|number| number >= 0),
        Cell::Text(text) => text.parse::<i64>().is_ok_and(|number| number >= 0 && number.to_string() == *text),
        Cell::Other(_) => false,
    }
}

fn is_user(cell: &Cell) -> bool {
    match cell {
        Cell::Integer(_) => true,
        Cell::Text(text) => (1..=USER_ID_BYTES_MAX).contains(&text.len()),
        Cell::Other(_) => false,
    }
}

/// Guesses a unit of time from the size of a number, if it then lies within the accepted years. The ranges of the units
/// do not overlap.
fn unit_of(number: i64) -> Option<TimestampUnit> {
    const UNITS: [(TimestampUnit, i64); 4] = [
        (TimestampUnit::Seconds, 1),
        (TimestampUnit::Milliseconds, 1_000),
        (TimestampUnit::Microseconds, 1_000_000),
        (TimestampUnit::Nanoseconds, 1_000_000_000),
    ];
    let within = |factor: i64| {
        let seconds = number / factor;
        (EVENT_TIME_MIN_MS / 1_000..EVENT_TIME_END_MS / 1_000).contains(&seconds)
    };
    UNITS.into_iter().find(|(_, factor)| within(*factor)).map(|(unit, _)| unit)
}

/// The integer part of a number that may be a time, without quotes.
fn integer_of(cell: &Cell) -> Option<i64> {
    let text = cell.text();
    let (integer, decimals) = text.split_once('.').unwrap_or((text, ""));
    decimals.bytes().all(|byte| byte.is_ascii_digit()).then(|| integer.parse().ok()).flatten()
}

/// The most frequent unit among the times.
fn unit(times: &[Cell]) -> TimestampUnit {
    let units: Vec<TimestampUnit> = times.iter().filter_map(integer_of).filter_map(unit_of).collect();
    let known =
        [TimestampUnit::Milliseconds, TimestampUnit::Seconds, TimestampUnit::Microseconds, TimestampUnit::Nanoseconds];
    let count = |unit| units.iter().filter(|&&found| found == unit).count();
    let mut best = known[0];
    for unit in known {
        if count(unit) > count(best) {
            best = unit;
        }
    }
    best
}

impl Guess {
    /// The settings for reading the file this way, as command-line flags.
    pub fn settings(&self) -> Vec<FlagSetting> {
        let set =
            |key: &'static str, value: &str| FlagSetting { flag: "inspect", key, value: Value::Text(value.to_owned()) };
        let mut settings = vec![
            set("input.format", self.format_name()),
            set("input.csv_delimiter", &char::from(self.csv_delimiter).to_string()),
            set("input.timestamp_unit", self.unit_name()),
        ];
        const KEYS: [&str; FIELDS.len()] = [
            "input.fields.click_timestamp",
            "input.fields.ad_id",
            "input.fields.user_id",
            "input.fields.ip",
            "input.fields.country",
            "input.fields.click_id",
        ];
        for (key, name) in KEYS.into_iter().zip(self.names()) {
            settings.push(set(key, &name));
        }
        settings
    }

    /// The name of each field: the guessed one, or else its own, made distinct from the guessed ones.
    fn names(&self) -> Vec<String> {
        let found: HashSet<&str> = self.fields.iter().filter_map(|field| field.name.as_deref()).collect();
        let own = |field: &FieldGuess| {
            let free = !found.contains(field.field);
            if free { field.field.to_owned() } else { format!("no {}", field.field) }
        };
        self.fields.iter().map(|field| field.name.clone().unwrap_or_else(|| own(field))).collect()
    }

    /// The configuration for reading the file this way.
    pub fn to_toml(&self, path: &str) -> String {
        let quoted = |text: &str| Value::Text(text.to_owned()).to_toml();
        let mut text =
            format!("[input]\npaths = [{}]\nformat = {}\n", quoted(&literally(path)), quoted(self.format_name()));
        if self.format == FormatChoice::Csv {
            text += &format!("csv_delimiter = {}\n", quoted(&char::from(self.csv_delimiter).to_string()));
        }
        text += &format!("timestamp_unit = {}\n\n[input.fields]\n", quoted(self.unit_name()));
        for (field, name) in self.fields.iter().zip(self.names()) {
            let remark = if field.name.is_some() { "" } else { " # not found in the first lines" };
            text += &format!("{} = {}{remark}\n", field.field, quoted(&name));
        }
        text
    }

    /// The format's name in the configuration.
    pub fn format_name(&self) -> &'static str {
        match self.format {
            FormatChoice::Auto => "auto",
            FormatChoice::Ndjson => "ndjson",
            FormatChoice::Csv => "csv",
        }
    }

    /// The unit's name in the configuration.
    pub fn unit_name(&self) -> &'static str {
        match self.timestamp_unit {
            TimestampUnit::Seconds => "s",
            TimestampUnit::Milliseconds => "ms",
            TimestampUnit::Microseconds => "us",
            TimestampUnit::Nanoseconds => "ns",
        }
    }
}
