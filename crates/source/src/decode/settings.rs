//! Settings of the decoder: format, names of fields and columns, unit of time.

use adtally_model::{Error, Result};
use serde::{Deserialize, Serialize};
use strum::{EnumIter, IntoStaticStr};

/// Longest line unless configured otherwise, in bytes without its line ending.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The bounds within which the longest line may be configured: below the first, ordinary clicks with long ids would
/// not fit; above the second, a few worker threads would hold too much.
const LINE_BYTES_MAX_RANGE: std::ops::RangeInclusive<usize> = 1024..=16 * 1024 * 1024;

/// Longest name of a field, in bytes: a bound on what is compared for every key of every line.
const NAME_BYTES_MAX: usize = 256;

/// How lines are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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

/// Null markers at most: each value that may be one is compared with them.
pub const NULL_VALUES_MAX: usize = 64;

/// Longest null marker, in bytes: longer than any field that may be absent.
pub const NULL_VALUE_BYTES_MAX: usize = 128;

/// The texts that make an optional field absent unless configured otherwise: nothing, the placeholder of web servers, of
/// MySQL, of programs that write a null as text, and the UUID of zeros.
pub const NULL_VALUES: [&str; 6] = ["", "-", "\\N", "null", "NULL", "00000000-0000-0000-0000-000000000000"];

/// The unit of timestamps that are numbers, the coarsest first. A number is a time from 2000 to 2099 in one of them at
/// most.
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
    /// As the configuration names it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Under which JSON key or CSV column each field is found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FieldNames {
    /// Event time.
    pub click_timestamp: String,
    /// The ad.
    pub ad_id: String,
    /// The user.
    pub user_id: String,
    /// The address that clicked.
    pub ip: String,
    /// Its country.
    pub country: String,
    /// The client's unique id of the click.
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
    pub(crate) fn in_order(&self) -> [&str; 6] {
        [&self.click_timestamp, &self.ad_id, &self.user_id, &self.ip, &self.country, &self.click_id]
    }
}

/// How lines are turned into clicks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeSettings {
    /// NDJSON, CSV, or found out for each file.
    pub format: FormatChoice,
    /// JSON keys or CSV columns.
    pub fields: FieldNames,
    /// Unit of timestamps that are numbers.
    pub timestamp_unit: TimestampUnit,
    /// Texts that make an optional field absent, compared byte for byte with the whole value. Nothing is one in any case.
    pub null_values: Vec<String>,
    /// Longest line, in bytes without its line ending; longer ones are malformed.
    pub line_bytes_max: usize,
    /// What separates the columns of CSV: one ASCII character.
    pub csv_delimiter: char,
}

impl Default for DecodeSettings {
    fn default() -> Self {
        DecodeSettings {
            format: FormatChoice::Auto,
            fields: FieldNames::default(),
            timestamp_unit: TimestampUnit::Milliseconds,
            null_values: NULL_VALUES.map(str::to_owned).to_vec(),
            line_bytes_max: LINE_BYTES_MAX,
            csv_delimiter: ',',
        }
    }
}

impl DecodeSettings {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// A user error that names the setting and what it may be.
    pub fn validate(&self) -> Result<()> {
        let names = self.fields.in_order();
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(Error::user(format!(
                    "a field name has {} bytes: give each field a name of 1 to {NAME_BYTES_MAX} bytes",
                    name.len()
                )));
            }
            if names[..at].contains(name) {
                return Err(Error::user(format!("two fields are both named {name:?}: give each field its own name")));
            }
        }
        if self.null_values.len() > NULL_VALUES_MAX {
            let found = self.null_values.len();
            return Err(Error::user(format!("null_values has {found} texts: at most {NULL_VALUES_MAX} are allowed")));
        }
        if let Some(text) = self.null_values.iter().find(|text| text.len() > NULL_VALUE_BYTES_MAX) {
            return Err(Error::user(format!(
                "null_values has a text of {} bytes: at most {NULL_VALUE_BYTES_MAX} are allowed",
                text.len()
            )));
        }
        if !LINE_BYTES_MAX_RANGE.contains(&self.line_bytes_max) {
            return Err(Error::user(format!(
                "line_bytes_max is {}: it must be from {} to {}",
                self.line_bytes_max,
                LINE_BYTES_MAX_RANGE.start(),
                LINE_BYTES_MAX_RANGE.end()
            )));
        }
        let delimiter = self.csv_delimiter;
        if !delimiter.is_ascii() || matches!(delimiter, '"' | '\r' | '\n' | '\0') || delimiter.is_ascii_alphanumeric() {
            return Err(Error::user(format!(
                "csv_delimiter is {delimiter:?}: it must be one ASCII character, such as ',' or '\\t', and neither a \
                 letter, a digit, a quote nor a line ending"
            )));
        }
        Ok(())
    }

    /// The delimiter as a byte; [`Self::validate`] has made sure that it is one.
    pub(crate) fn delimiter(&self) -> u8 {
        u8::try_from(self.csv_delimiter).unwrap_or(b',')
    }
}
