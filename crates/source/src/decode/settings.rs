//! Settings of the decoder: format, names of fields and columns, unit of time.

use adtally_model::{Error, Result};
use serde::{Deserialize, Serialize};

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

/// The unit of integer timestamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    #[serde(rename = "s")]
    Seconds,
    /// Milliseconds since the Unix epoch.
    #[default]
    #[serde(rename = "ms")]
    Milliseconds,
    /// Microseconds since the Unix epoch.
    #[serde(rename = "us")]
    Microseconds,
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
    /// Unit of integer timestamps.
    pub timestamp_unit: TimestampUnit,
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
