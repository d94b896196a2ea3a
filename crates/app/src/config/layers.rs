//! Reads one value per setting: defaults, file, environment and flags, in order of increasing precedence. Each value
//! keeps its origin, for errors and `config show`.

use adtally_model::{Error, Result};
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The defaults. They also define which settings exist, and their types.
pub const DEFAULT_TOML: &str = include_str!("../../../../config/default.toml");

/// The prefix of environment variables that contain a setting.
pub const ENVIRONMENT_PREFIX: &str = "ADTALLY_";

/// Maximum depth of nested tables that are read: sections are two deep, and a damaged file must not exhaust the stack.
const DEPTH_MAX: usize = 8;

/// A value as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Text, including spans, sizes, addresses and choices.
    Text(String),
    /// An integer.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A list of texts.
    Texts(Vec<String>),
    /// A value that no setting accepts, in words: `the number 1.5`.
    Other(String),
}

impl Value {
    /// The value in words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Value::Text(text) => format!("the text {text:?}"),
            Value::Integer(number) => format!("the number {number}"),
            Value::Boolean(answer) => format!("{answer}"),
            Value::Texts(_) => "a list".to_owned(),
            Value::Other(words) => words.clone(),
        }
    }

    /// The value as TOML.
    pub fn to_toml(&self) -> String {
        match self {
            Value::Text(text) => toml::Value::from(text.as_str()).to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(answer) => answer.to_string(),
            Value::Texts(texts) => toml::Value::from(texts.clone()).to_string(),
            Value::Other(words) => words.clone(),
        }
    }

    /// The value as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Text(text) | Value::Other(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Boolean(answer) => (*answer).into(),
            Value::Texts(texts) => texts.as_slice().into(),
        }
    }

    /// Parses the text of an environment variable for a setting whose default is `self`. Text that does not fit stays
    /// text; validation rejects it.
    fn read_like(&self, text: &str) -> Value {
        match self {
            Value::Integer(_) => text.trim().parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Integer),
            Value::Boolean(_) => text.trim().parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Boolean),
            Value::Texts(_) => read_list(text),
            Value::Text(_) | Value::Other(_) => Value::Text(text.to_owned()),
        }
    }
}

/// Parses a list in an environment variable: a TOML array, as in `["a,b.log"]`, if it starts like one; otherwise texts
/// separated by commas. Commas within braces belong to a glob.
fn read_list(text: &str) -> Value {
    // A glob may start with a bracket too.
    let inside = text.trim().strip_prefix('[').map(str::trim_start);
    if inside.is_some_and(|inside| inside.starts_with(['"', '\'', ']'])) {
        let document = format!("list = {}", text.trim());
        let list = DeTable::parse(&document).ok().filter(|table| table.get_ref().len() == 1);
        let list = list.as_ref().and_then(|table| table.get_ref().values().next());
        return list.map_or_else(
            || Value::Other("an array that is not valid TOML".to_owned()),
            |list| value_of(list.get_ref()),
        );
    }
    let mut depth = 0_usize;
    let parts = text.split(|char: char| {
        match char {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        char == ',' && depth == 0
    });
    Value::Texts(parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
}

/// The origin of a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as it was given.
        name: String,
        /// Line, from 1.
        line: usize,
    },
    /// An environment variable of this name.
    Environment(String),
    /// A flag on the command line, as in `--listen`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// One setting, not yet validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its name with its section: `time.max_jump`.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The origin of the value.
    pub origin: Origin,
}

/// A setting given on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlagSetting {
    /// The flag, as in `--listen`.
    pub flag: &'static str,
    /// The setting, as in `serve.listen`.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// The sources of values besides the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// Name and text of the configuration file.
    pub file: Option<(&'a str, &'a str)>,
    /// Environment variables; those of other programs are ignored.
    pub environment: &'a [(String, String)],
    /// Flags on the command line.
    pub flags: &'a [FlagSetting],
}

/// All settings with their origins, not yet validated. Contains exactly the known settings.
#[derive(Clone, Debug)]
pub struct RawConfig {
    /// In the order of `config/default.toml`.
    settings: Vec<Setting>,
}

impl RawConfig {
    /// Merges the sources over the defaults.
    ///
    /// # Errors
    /// A user error that lists every syntax error, unknown key and unknown section with its place.
    pub fn merge(sources: &Sources<'_>) -> Result<RawConfig> {
        let mut raw = RawConfig { settings: defaults()? };
        let mut problems = Vec::new();
        if let Some((name, text)) = sources.file {
            raw.lay_file(name, text, &mut problems);
        }
        for (variable, text) in sources.environment {
            raw.lay_variable(variable, text, &mut problems);
        }
        for flag in sources.flags {
            raw.set(flag.key, flag.value.clone(), Origin::Flag(flag.flag))
                .unwrap_or_else(|_| problems.push(format!("{}: there is no setting {}", flag.flag, flag.key)));
        }
        refuse(problems)?;
        Ok(raw)
    }

    /// All settings in the order of `config/default.toml`.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// The setting with this name.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ()> {
        let setting = self.settings.iter_mut().find(|setting| setting.key == key).ok_or(())?;
        (setting.value, setting.origin) = (value, origin);
        Ok(())
    }

    /// Replaces a value by the default. Returns whether it was different.
    pub(super) fn reset(&mut self, key: &str) -> Result<bool> {
        let default = defaults()?.into_iter().find(|default| default.key == key);
        let setting = self.settings.iter_mut().find(|setting| setting.key == key && setting.origin != Origin::Default);
        let (Some(setting), Some(default)) = (setting, default) else { return Ok(false) };
        *setting = default;
        Ok(true)
    }

    fn lay_file(&mut self, name: &str, text: &str, problems: &mut Vec<String>) {
        match DeTable::parse(text) {
            Ok(table) => {
                let file = File { name, text };
                self.lay_table(&file, "", table.get_ref(), 0, problems);
            }
            Err(error) => {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                problems.push(format!("{name}:{line}: not valid TOML: {}", error.message()));
            }
        }
    }

    fn lay_table(
        &mut self,
        file: &File<'_>,
        prefix: &str,
        table: &DeTable<'_>,
        depth: usize,
        problems: &mut Vec<String>,
    ) {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let at = file.at(name);
            if let DeValue::Table(inner) = value.get_ref() {
                if self.is_section(&key) && depth < DEPTH_MAX {
                    self.lay_table(file, &key, inner, depth + 1, problems);
                } else if self.get(&key).is_some() {
                    problems.push(format!("{at}: {key} is a setting, not a section"));
                } else {
                    problems.push(format!("{at}: unknown section [{key}]; {}", self.nearest_section(&key)));
                }
            } else if self.is_section(&key) {
                problems.push(format!("{at}: {key} is a section: write [{key}] and its settings below"));
            } else {
                let origin = Origin::File { name: file.name.to_owned(), line: file.line(name) };
                let laid = self.set(&key, value_of(value.get_ref()), origin);
                laid.unwrap_or_else(|()| problems.push(format!("{at}: unknown setting {key}; {}", self.nearest(&key))));
            }
        }
    }

    /// Sets the value of `ADTALLY_<SECTION>__<KEY>`. Other variables are ignored, unless they only lack an underscore.
    fn lay_variable(&mut self, variable: &str, text: &str, problems: &mut Vec<String>) {
        let Some(rest) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { return };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        if let Some(default) = self.get(&key) {
            let value = default.value.read_like(text);
            self.set(&key, value, Origin::Environment(variable.to_owned())).unwrap_or_default();
        } else if rest.contains("__") {
            problems.push(format!("environment {variable}: unknown setting {key}; {}", self.nearest(&key)));
        } else if let Some(meant) = self.settings.iter().find(|setting| setting.key.replace('.', "_") == key) {
            let right = variable_of(&meant.key);
            problems.push(format!("environment {variable}: did you mean {right}, with two underscores?"));
        }
    }

    pub(super) fn is_section(&self, key: &str) -> bool {
        self.sections().any(|section| section == key)
    }

    fn sections(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().filter_map(|setting| setting.key.rsplit_once('.').map(|(section, _)| section))
    }

    /// A hint at the setting that was probably meant by an unknown key.
    fn nearest(&self, key: &str) -> String {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        // A correct name in a wrong section is near, but never nearer than a typing error in the right section.
        let distance = |known: &str| edits(key, known).min(edits(&last(key), &last(known)) + 1);
        let known = self.settings.iter().map(|setting| setting.key.as_str());
        match known.map(|known| (distance(known), known)).min() {
            Some((distance, known)) if distance <= 1 + last(key).len() / 4 => format!("did you mean {known}?"),
            _ => {
                let section = key.rsplit_once('.').map_or("", |(section, _)| section);
                let siblings: Vec<_> = self
                    .settings
                    .iter()
                    .filter(|setting| setting.key.rsplit_once('.').is_some_and(|(of, _)| of == section))
                    .map(|setting| last(&setting.key))
                    .collect();
                if siblings.is_empty() {
                    self.nearest_section(section)
                } else {
                    format!("[{section}] has {}", siblings.join(", "))
                }
            }
        }
    }

    fn nearest_section(&self, section: &str) -> String {
        let mut known: Vec<_> = self.sections().collect();
        known.dedup();
        match known.iter().map(|known| (edits(section, known), known)).min() {
            Some((distance, known)) if distance <= 1 + section.len() / 4 => format!("did you mean [{known}]?"),
            _ => format!("the sections are {}", known.join(", ")),
        }
    }
}

/// The environment variable of a setting.
pub fn variable_of(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// A file being read.
struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn line<T>(&self, of: &Spanned<T>) -> usize {
        line_of(self.text, of.span().start)
    }

    fn at<T>(&self, of: &Spanned<T>) -> String {
        format!("{}:{}", self.name, self.line(of))
    }
}

/// Combines all problems into one error.
///
/// # Errors
/// A user error when there are problems.
pub(super) fn refuse(problems: Vec<String>) -> Result<()> {
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::user(one.clone())),
        many => Err(Error::user(format!("{} mistakes in the configuration:\n  {}", many.len(), many.join("\n  ")))),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// The defaults in the order of the file.
fn defaults() -> Result<Vec<Setting>> {
    let table = DeTable::parse(DEFAULT_TOML).map_err(|error| Error::internal("config/default.toml").because(error))?;
    let mut found = Vec::new();
    gather("", table.get_ref(), &mut found);
    found.sort_by_key(|(offset, _)| *offset);
    Ok(found.into_iter().map(|(_, setting)| setting).collect())
}

fn gather(prefix: &str, table: &DeTable<'_>, found: &mut Vec<(usize, Setting)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => gather(&key, inner, found),
            value => found.push((name.span().start, Setting { key, value: value_of(value), origin: Origin::Default })),
        }
    }
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Other(format!("the number {number}")), Value::Integer),
        DeValue::Boolean(answer) => Value::Boolean(*answer),
        DeValue::Float(number) => Value::Other(format!("the number {}", number.as_str())),
        DeValue::Datetime(time) => Value::Other(format!("the time {time}")),
        DeValue::Table(_) => Value::Other("a table".to_owned()),
        DeValue::Array(items) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            let texts: Option<Vec<String>> = texts.collect();
            texts.map_or_else(|| Value::Other("a list that holds more than text".to_owned()), Value::Texts)
        }
    }
}

/// Single-character insertions, deletions and substitutions between two texts (Levenshtein distance).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A key in a file may be very long; beyond this length it is not near any setting.
    for (above, from) in from.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, &to) in to.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[at + 1];
            row[at + 1] = substituted.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
