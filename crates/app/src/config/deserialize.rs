//! Deserializes settings into the rooms' settings structs, whose fields declare which settings they take.

use super::layers::{Origin, RawConfig, Setting, Value};
use super::show::SECRET;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, Expected, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

/// An error in a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mistake {
    /// The setting; empty until it is known.
    pub(super) key: String,
    /// The expected value at first; the whole message once the setting is known.
    pub(super) text: String,
}

impl Mistake {
    /// Adds the place of the wrong value and the value itself.
    fn at(self, setting: &Setting) -> Mistake {
        let key = &setting.key;
        let found = match (&setting.value, key.as_str()) {
            // No message contains a secret, not even a wrong one.
            (Value::Text(text), SECRET) => format!("a text of {} bytes", text.len()),
            (Value::Integer(_), SECRET) => "a number".to_owned(),
            // There may be passwords among them.
            (Value::Texts(_), "kafka.options") => "this list".to_owned(),
            (value, _) => value.describe(),
        };
        let place = match &setting.origin {
            Origin::Default => "config/default.toml".to_owned(),
            // The variable and the flag identify the setting already.
            origin => origin.to_string(),
        };
        Mistake { text: format!("{place}: {key} must be {}, not {found}", self.text), key: key.clone() }
    }
}

impl Error for Mistake {
    fn custom<T: fmt::Display>(text: T) -> Mistake {
        Mistake { key: String::new(), text: text.to_string() }
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Mistake {
        Mistake::custom(wanted)
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> Mistake {
        Mistake::custom(wanted)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Mistake {}

/// The settings of a section. The fields of its struct are settings, subsections, or structs with more settings of the
/// same section.
pub(super) struct Section<'a> {
    raw: &'a RawConfig,
    /// Its name: `input.fields`; empty for the whole configuration.
    name: String,
    /// The name of the field, for an error if it is not a section.
    field: String,
}

impl<'a> Section<'a> {
    /// The whole configuration.
    pub(super) fn whole(raw: &'a RawConfig) -> Section<'a> {
        Section { raw, name: String::new(), field: String::new() }
    }
}

impl<'de> Deserializer<'de> for Section<'_> {
    type Error = Mistake;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_map(Fields { section: self, fields })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Mistake> {
        Err(Mistake::custom(format!("config/default.toml lacks {}", self.field)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The remaining fields of a struct.
struct Fields<'a> {
    section: Section<'a>,
    fields: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let name = self.fields.first();
        name.map(|name| seed.deserialize(StrDeserializer::<Mistake>::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        let Section { raw, name, .. } = &self.section;
        let Some((field, rest)) = self.fields.split_first() else { return Err(Mistake::custom("no field is left")) };
        self.fields = rest;
        let key = if name.is_empty() { (*field).to_owned() } else { format!("{name}.{field}") };
        if let Some(setting) = raw.get(&key) {
            return seed.deserialize(Leaf(&setting.value)).map_err(|wanted| wanted.at(setting));
        }
        let name = if raw.is_section(&key) { &key } else { name };
        seed.deserialize(Section { raw, name: name.clone(), field: key })
    }
}

/// A value.
struct Leaf<'a>(&'a Value);

impl<'de> Deserializer<'de> for Leaf<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Text(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Boolean(answer) => visitor.visit_bool(*answer),
            Value::Texts(texts) => visitor.visit_seq(SeqDeserializer::new(texts.iter().map(String::as_str))),
            Value::Other(words) => Err(Mistake::invalid_type(Unexpected::Other(words), &visitor)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Boolean(answer) => visitor.visit_bool(*answer),
            _ => Err(Mistake::custom("true or false")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match self.0 {
            Value::Text(text) if names.contains(&text.as_str()) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => {
                let names: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
                Err(Mistake::custom(format!("one of {}", names.join(", "))))
            }
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
