//! Settings of the decoder: format, names of fields and columns, unit of time.

use adtally_model::settings::{Canonical, Clash, KIB, MIB, Size, Text, Texts};
use serde::Deserialize;
use strum::{EnumIter, IntoStaticStr};

/// Longest line unless configured otherwise, in bytes without its line ending.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Names of fields. No log has longer keys, and each line is searched for them.
pub type FieldName = Text<1, 128>;

/// How lines are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatChoice {
    /// By the first line of each file, and where that does not tell by its name.
    #[default]
    Auto,
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// Null markers: at most 64, because each value that may be one is compared with them, and none longer than any field
/// that may be absent.
type NullMarkers = Texts<64, 128>;

/// The texts that make an optional field absent unless configured otherwise: nothing, the placeholder of web servers, of
/// MySQL, of programs that write a null as text, and the UUID of zeros.
pub const NULL_VALUES: [&str; 6] = ["", "-", "\\N", "null", "NULL", "00000000-0000-0000-0000-000000000000"];

/// The unit of timestamps that are numbers, the coarsest first. A number is a time from 2000 to 2099 in one of them at
/// most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, EnumIter, IntoStaticStr)]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    #[serde(rename = "s")]
    #[strum(serialize = "s")]
    Seconds,
    /// Milliseconds since the Unix epoch.
    #[default]
    #[serde(rename = "ms")]
    #[strum(serialize = "ms")]
    Milliseconds,
    /// Microseconds since the Unix epoch.
    #[serde(rename = "us")]
    #[strum(serialize = "us")]
    Microseconds,
    /// Nanoseconds since the Unix epoch.
    #[serde(rename = "ns")]
    #[strum(serialize = "ns")]
    Nanoseconds,
}

impl TimestampUnit {
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Fields of a click.
pub(crate) const FIELDS: usize = 6;

/// Names of the fields in reasons and in settings, in their order.
pub(crate) const FIELD_NAMES: [&str; FIELDS] = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];

/// Under which JSON key or CSV column each field is found.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct FieldNames {
    /// Event time.
    #[serde(deserialize_with = "FieldName::owned")]
    pub click_timestamp: String,
    /// The ad.
    #[serde(deserialize_with = "FieldName::owned")]
    pub ad_id: String,
    /// The user.
    #[serde(deserialize_with = "FieldName::owned")]
    pub user_id: String,
    /// The address that clicked.
    #[serde(deserialize_with = "FieldName::owned")]
    pub ip: String,
    /// Its country.
    #[serde(deserialize_with = "FieldName::owned")]
    pub country: String,
    /// The client's unique id of the click.
    #[serde(deserialize_with = "FieldName::owned")]
    pub click_id: String,
}

impl Default for FieldNames {
    fn default() -> Self {
        FieldNames {
            click_timestamp: "click_timestamp".into(),
            ad_id: "ad_id".into(),
            user_id: "user_id".into(),
            ip: "ip".into(),
            country: "country".into(),
            click_id: "click_id".into(),
        }
    }
}

impl FieldNames {
    /// The names in the order of the fields.
    pub(crate) fn in_order(&self) -> [&str; FIELDS] {
        [&self.click_timestamp, &self.ad_id, &self.user_id, &self.ip, &self.country, &self.click_id]
    }
}

/// What separates the columns of CSV.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[repr(u8)]
pub enum CsvDelimiter {
    /// The usual one.
    #[default]
    #[serde(rename = ",")]
    Comma = b',',
    /// Where commas are decimal points.
    #[serde(rename = ";")]
    Semicolon = b';',
    /// TSV.
    #[serde(rename = "\t")]
    Tab = b'\t',
    /// A vertical bar.
    #[serde(rename = "|")]
    Pipe = b'|',
}

impl CsvDelimiter {
    /// Each of them, the likeliest first.
    pub const ALL: [CsvDelimiter; 4] =
        [CsvDelimiter::Comma, CsvDelimiter::Semicolon, CsvDelimiter::Tab, CsvDelimiter::Pipe];

    /// As it is written.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// How lines are turned into clicks.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct DecodeSettings {
    /// NDJSON, CSV, or found out for each file.
    pub format: FormatChoice,
    /// JSON keys or CSV columns.
    pub fields: FieldNames,
    /// Unit of timestamps that are numbers.
    pub timestamp_unit: TimestampUnit,
    /// Texts that make an optional field absent, compared byte for byte with the whole value. Nothing is one in any case.
    #[serde(deserialize_with = "NullMarkers::owned")]
    pub null_values: Vec<String>,
    /// Longest line, in bytes without its line ending; longer ones are malformed. In less, ordinary clicks with long ids
    /// would not fit; of more, a few worker threads would hold too much.
    #[serde(rename = "max_line", deserialize_with = "Size::<KIB, { 16 * MIB }>::bytes")]
    pub line_bytes_max: usize,
    /// What separates the columns of CSV.
    pub csv_delimiter: CsvDelimiter,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        DecodeSettings {
            format: FormatChoice::Auto,
            fields: FieldNames::default(),
            timestamp_unit: TimestampUnit::Milliseconds,
            null_values: NULL_VALUES.map(str::to_owned).to_vec(),
            line_bytes_max: LINE_BYTES_MAX,
            csv_delimiter: CsvDelimiter::Comma,
        }
    }
}

impl DecodeSettings {
    /// Fields of a click that have the same name in the log.
    pub fn clashes(&self) -> Vec<Clash> {
        let names = self.fields.in_order();
        let twin = |at: usize| names[..at].iter().position(|other| *other == names[at]);
        let key = |at: usize| format!("input.fields.{}", FIELD_NAMES[at]).into();
        let clash = |at: usize| {
            Some(Clash {
                one: key(at),
                relation: "must differ from",
                other: key(twin(at)?),
                why: "one field of the log cannot be two fields of a click",
            })
        };
        (0..names.len()).filter_map(clash).collect()
    }

    /// What verdicts depend on, which is all of it.
    pub fn canonical(&self) -> Canonical {
        let DecodeSettings { format, fields, timestamp_unit, null_values, line_bytes_max, csv_delimiter } = self;
        // Debug texts of our own plain types: lengths are unambiguous because texts are quoted and escaped.
        let (delimiter, names) = (csv_delimiter.byte(), fields.in_order());
        let first = format!("{format:?} {delimiter} {timestamp_unit:?} {line_bytes_max} {names:?}");
        let later = if *null_values == NULL_VALUES { String::new() } else { format!(" {null_values:?}") };
        Canonical { first, later }
    }
}
