//! Every setting with its value and origin, secrets masked.

use super::RawConfig;
use super::layers::Value;
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// The key whose value is never shown.
pub(super) const SECRET: &str = "identity.key";

/// The replacement for a secret.
const MASK: &str = "***";

/// One line of `config show`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    /// The setting: `time.max_jump`.
    pub key: String,
    /// Its value; the text `***` for a secret that is set.
    #[serde(serialize_with = "as_json")]
    pub value: Value,
    /// `default`, `file:line`, `environment VARIABLE` or `flag --name`.
    pub origin: String,
}

impl RawConfig {
    /// Every setting in the order of `config/default.toml`.
    pub fn shown(&self) -> Vec<Shown> {
        self.settings()
            .iter()
            .map(|setting| {
                let set = setting.value != Value::Text(String::new());
                let masked = setting.key == SECRET && set;
                let value = if masked { Value::Text(MASK.to_owned()) } else { setting.value.clone() };
                Shown { key: setting.key.clone(), value, origin: setting.origin.to_string() }
            })
            .collect()
    }

    /// The settings as a TOML document, with the origin of each in a comment.
    pub fn shown_as_toml(&self) -> String {
        let shown = self.shown();
        let width = shown.iter().map(|row| row.key.len() + row.value.to_toml().len()).max().unwrap_or_default();
        let mut text = String::new();
        let mut current = "";
        for row in &shown {
            let (section, name) = row.key.rsplit_once('.').unwrap_or(("", &row.key));
            if section != current {
                let gap = if current.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{section}]");
                current = section;
            }
            let assignment = format!("{name} = {}", row.value.to_toml());
            // Long values move only their own comment.
            let _ = writeln!(text, "{assignment:<width$} # {}", row.origin, width = width.min(44));
        }
        text
    }
}

fn as_json<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_json().serialize(serializer)
}
