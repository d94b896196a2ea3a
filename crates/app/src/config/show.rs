//! Every setting with its value and origin, secrets masked.

use super::RawConfig;
use super::layers::Value;
use serde::{Serialize, Serializer};
use std::fmt::Write;

/// The key whose value is never shown.
pub(super) const SECRET: &str = "identity.key";

/// The key of a list of `name=value`, among which passwords may be.
const SECRETS: &str = "kafka.options";

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
                let value = match (&setting.value, setting.key.as_str()) {
                    (_, SECRET) if set => Value::Text(MASK.to_owned()),
                    (Value::Texts(options), SECRETS) => {
                        Value::Texts(options.iter().map(|option| masked(option)).collect())
                    }
                    (value, _) => value.clone(),
                };
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

/// An option without its value, unless its name says that the value is none of a password, a key or a token.
fn masked(option: &str) -> String {
    let public = ["security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "ssl.ca.location"];
    match option.split_once('=') {
        Some((name, _)) if public.contains(&name.trim()) || !name.contains("sasl") && !name.contains("ssl") => {
            option.to_owned()
        }
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    }
}

fn as_json<S: Serializer>(value: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_json().serialize(serializer)
}
