//! Settings of the decoder: format, names of fields and columns, unit of time.

use adtally_model::settings::{Canonical, Clash, KIB, MIB, Size, Text, Texts};
use serde::{Deserialize, Serialize};
use strum::{EnumIter, IntoStaticStr};

/// Default maximum length of a line, in bytes without its line ending.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Names of fields. They are bounded because each line is searched for them; no log has longer keys.
pub type FieldName = Text<1, 128>;

/// How the format of lines is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatChoice {
    /// By the first line of each file, and by its name if the line is not conclusive.
    #[default]
    Auto,
    /// A JSON object per line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// Null markers: at most 64, because values are compared with each of them, and none longer than the longest optional
/// field.
type NullMarkers = Texts<64, 128>;

/// The default texts that make an optional field absent: the empty text, the placeholders of web servers, of MySQL and
/// of programs that write a null as text, and the nil UUID.
pub const NULL_VALUES: [&str; 6] = ["", "-", "\\N", "null", "NULL", "00000000-0000-0000-0000-000000000000"];

/// The unit of timestamps that are numbers, the coarsest first. A number is a time from 2000 to 2099 in at most one
/// unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, EnumIter, IntoStaticStr)]
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
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The number of fields of a click.
pub(crate) const FIELDS: usize = 6;

/// Names of the fields in reasons and in settings, in field order.
pub(crate) const FIELD_NAMES: [&str; FIELDS] = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];

/// The JSON key or CSV column of each field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

/// The separator of CSV columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum CsvDelimiter {
    /// The usual separator.
    #[default]
    #[serde(rename = ",")]
    Comma = b',',
    /// Used where the comma is the decimal point.
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
    /// All separators, the most likely first.
    pub const ALL: [CsvDelimiter; 4] =
        [CsvDelimiter::Comma, CsvDelimiter::Semicolon, CsvDelimiter::Tab, CsvDelimiter::Pipe];

    /// The separator as a byte.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

/// How lines are turned into clicks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DecodeSettings {
    /// NDJSON, CSV, or detected for each file.
    pub format: FormatChoice,
    /// JSON keys or CSV columns.
    pub fields: FieldNames,
    /// Unit of timestamps that are numbers.
    pub timestamp_unit: TimestampUnit,
    /// Texts that make an optional field absent, compared byte for byte with the whole value. Empty text always does.
    #[serde(deserialize_with = "NullMarkers::owned")]
    pub null_values: Vec<String>,
    /// Maximum length of a line, in bytes without its line ending; longer lines are malformed. A lower limit would
    /// reject ordinary clicks with long ids; with a higher one, a few worker threads would use too much memory.
    #[serde(
        rename = "max_line",
        deserialize_with = "Size::<KIB, { 16 * MIB }>::bytes",
        serialize_with = "Size::<KIB, { 16 * MIB }>::text"
    )]
    pub line_bytes_max: usize,
    /// The separator of CSV columns.
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

    /// The settings that verdicts depend on, which is all of them.
    pub fn canonical(&self) -> Canonical {
        let DecodeSettings { format, fields, timestamp_unit, null_values, line_bytes_max, csv_delimiter } = self;
        // Debug texts of our own plain types: lengths are unambiguous because texts are quoted and escaped.
        let (delimiter, names) = (csv_delimiter.byte(), fields.in_order());
        let first = format!("{format:?} {delimiter} {timestamp_unit:?} {line_bytes_max} {names:?}");
        let later = if *null_values == NULL_VALUES { String::new() } else { format!(" {null_values:?}") };
        Canonical { first, later }
    }
}
