//! Validates written values: the rooms define what each value may be and which values must fit together.

use super::Config;
use super::deserialize::Section;
use super::layers::{self, RawConfig};
use adtally_model::{Error, Result};
use serde::Deserialize;

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// A user error that lists every mistake with its place and what is allowed there.
    pub fn validate(raw: &RawConfig) -> Result<Config> {
        let (mut good, mut mistakes) = (raw.clone(), Vec::new());
        let config = loop {
            match Config::deserialize(Section::whole(&good)) {
                Ok(config) => break config,
                Err(mistake) => {
                    // The default replaces a wrong value, so that all mistakes are found.
                    if !good.reset(&mistake.key)? {
                        return Err(Error::internal(mistake.text));
                    }
                    mistakes.push(mistake.text);
                }
            }
        };
        // Conflicts that involve wrong values would only be reported twice.
        if mistakes.is_empty() {
            let shown = |key: &str| {
                let setting = raw.get(key);
                setting.map_or_else(String::new, |it| format!("{key} ({}, {})", it.value.to_toml(), it.origin))
            };
            mistakes = config.run.clashes().iter().map(|clash| clash.told(shown)).collect();
        }
        layers::refuse(mistakes)?;
        Ok(config)
    }
}
