//! From what was written to what it means: types, ranges and what must fit together.

use super::layers::{self, RawConfig, Setting, Value};
use super::quantity::{format_size, format_span_ms, parse_size, parse_span_ms};
use super::{Config, LogConfig, LogFormat};
use adtally_engine::Bounds;
use adtally_engine::{EpochSettings, Settings, SourceSettings, StoreSettings};
use adtally_model::{IdentityKey, Result};
use adtally_pipeline::TimeSettings;
use adtally_serve::Limits;
use adtally_source::{
    DecodeSettings, FieldNames, FormatChoice, NULL_VALUE_BYTES_MAX, NULL_VALUES_MAX, TailSettings, TimestampUnit,
};
use adtally_store::backing::StoreUrl;
use adtally_store::lake::Keep;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The longest time for which something may be kept: a hundred years.
const KEPT_MAX: i64 = 36_500 * DAY;

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// Bytes of a name in `[input.fields]`; no log has longer keys, and each line is searched for them.
const FIELD_NAME_BYTES_MAX: usize = 128;

/// The key whose value is never shown.
pub(super) const SECRET: &str = "identity.key";

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// A user error that lists every mistake with its place and what is allowed there.
    pub fn validate(raw: &RawConfig) -> Result<Config> {
        let mut reader = Reader { raw, problems: Vec::new() };
        let config = Config {
            run: Settings {
                time: time(&mut reader),
                source: source(&mut reader),
                epoch: EpochSettings {
                    interval: reader.duration("epoch.interval", 100..=10 * MINUTE),
                    lines_max: reader.integer("epoch.max_lines", 1..=100_000_000).unsigned_abs(),
                    bytes_max: reader.size("epoch.max_bytes", 64 * KIB..=4 * GIB).unsigned_abs(),
                    fsync: reader.boolean("epoch.fsync"),
                },
                store: store(&mut reader),
                identity_key: reader.key(SECRET).map(IdentityKey::new),
                bounds: Bounds::default(),
            },
            listen: reader.address("serve.listen"),
            limits: Limits {
                connections_max: reader.integer("serve.max_connections", 1..=65_536) as usize,
                request_timeout: reader.duration("serve.request_timeout", 100..=10 * MINUTE),
                ..Limits::default()
            },
            log: LogConfig {
                format: reader.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
                level: reader
                    .choice("log.level", &["error", "warn", "info", "debug", "trace"].map(|level| (level, level))),
            },
        };
        reader.fit(&config);
        layers::refuse(reader.problems)?;
        Ok(config)
    }
}

fn source(reader: &mut Reader<'_>) -> SourceSettings {
    let decode = decode(reader);
    SourceSettings {
        paths: reader.texts("input.paths"),
        tail: TailSettings {
            decode: Arc::new(decode),
            block_bytes: reader.size("input.block", 64 * KIB..=64 * MIB) as usize,
            rotate_wait_ms: reader.span_ms("input.rotate_wait", 0..=HOUR),
            ..TailSettings::default()
        },
        discovery_interval: reader.duration("input.discovery_interval", 10..=MINUTE),
    }
}

fn decode(reader: &mut Reader<'_>) -> DecodeSettings {
    let mut field = |key| reader.text(key, 1..=FIELD_NAME_BYTES_MAX);
    let fields = FieldNames {
        click_timestamp: field("input.fields.click_timestamp"),
        ad_id: field("input.fields.ad_id"),
        user_id: field("input.fields.user_id"),
        ip: field("input.fields.ip"),
        country: field("input.fields.country"),
        click_id: field("input.fields.click_id"),
    };
    let formats = [("auto", FormatChoice::Auto), ("ndjson", FormatChoice::Ndjson), ("csv", FormatChoice::Csv)];
    let units = [
        ("s", TimestampUnit::Seconds),
        ("ms", TimestampUnit::Milliseconds),
        ("us", TimestampUnit::Microseconds),
        ("ns", TimestampUnit::Nanoseconds),
    ];
    DecodeSettings {
        format: reader.choice("input.format", &formats),
        fields,
        timestamp_unit: reader.choice("input.timestamp_unit", &units),
        null_values: reader.null_values("input.null_values"),
        line_bytes_max: reader.size("input.max_line", KIB..=16 * MIB) as usize,
        csv_delimiter: reader.choice("input.csv_delimiter", &[(",", ','), (";", ';'), ("\t", '\t'), ("|", '|')]),
    }
}

fn time(reader: &mut Reader<'_>) -> TimeSettings {
    TimeSettings {
        max_future_skew_ms: reader.span_ms("time.max_future_skew", 0..=DAY),
        max_jump_ms: reader.span_ms("time.max_jump", SECOND..=DAY),
        out_of_orderness_ms: reader.span_ms("time.out_of_orderness", 0..=HOUR),
        idle_timeout_ms: reader.span_ms("time.idle_timeout", SECOND..=DAY),
        allowed_lateness_ms: reader.span_ms("time.allowed_lateness", 0..=2 * DAY),
        idle_finality_ms: reader.span_ms("time.idle_finality", SECOND..=7 * DAY),
        dedup_horizon_ms: reader.span_ms("time.dedup_horizon", 0..=2 * DAY),
        dedup_capacity: reader.integer("time.dedup_capacity", 100_000..=4_000_000_000) as usize,
        alignment_ms: reader.span_ms("time.alignment", SECOND..=DAY),
    }
}

fn store(reader: &mut Reader<'_>) -> StoreSettings {
    StoreSettings {
        data_dir: reader.store_url("store.data_dir"),
        hot_minutes: reader.integer("store.hot_minutes", 1..=10_080) as u32,
        lake_interval: reader.duration("store.lake_interval", SECOND..=DAY),
        upkeep_interval: reader.duration("store.upkeep_interval", SECOND..=DAY),
        keep: Keep {
            clicks_ms: reader.span_ms("store.keep_clicks", DAY..=KEPT_MAX),
            // More than the longest range that is held in memory, which is rebuilt from minutes.
            minutes_ms: reader.span_ms("store.keep_minutes", 8 * DAY..=KEPT_MAX),
            hours_ms: reader.span_ms("store.keep_hours", 8 * DAY..=KEPT_MAX),
            letters_ms: reader.span_ms("store.keep_dead_letters", DAY..=KEPT_MAX),
        },
    }
}

/// Reads settings, and remembers what is wrong instead of stopping at the first mistake.
struct Reader<'a> {
    raw: &'a RawConfig,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn setting(&mut self, key: &str) -> Option<Setting> {
        let found = self.raw.get(key).cloned();
        if found.is_none() {
            self.problems.push(format!("config/default.toml lacks {key}"));
        }
        found
    }

    /// Reads a setting by `read`, which is `None` where the value is not `wanted`.
    fn read<T>(&mut self, key: &str, wanted: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let setting = self.setting(key)?;
        let value = read(&setting.value);
        if value.is_none() {
            let found = match (&setting.value, key) {
                // A secret shows up in no message, not even a wrong one.
                (Value::Text(text), SECRET) => format!("a text of {} bytes", text.len()),
                (Value::Integer(_), SECRET) => "a number".to_owned(),
                (value, _) => value.describe(),
            };
            let key = match &setting.origin {
                // The variable and the flag name the setting themselves, if in other words.
                layers::Origin::Default => format!("config/default.toml: {key}"),
                origin => format!("{origin}: {key}"),
            };
            self.problems.push(format!("{key} must be {wanted}, not {found}"));
        }
        value
    }

    fn text(&mut self, key: &str, bytes: RangeInclusive<usize>) -> String {
        let wanted = format!("a text of {} to {} bytes", bytes.start(), bytes.end());
        let read = |value: &Value| match value {
            Value::Text(text) if bytes.contains(&text.len()) && !text.contains('\0') => Some(text.clone()),
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or_default()
    }

    fn store_url(&mut self, key: &str) -> StoreUrl {
        let read = |value: &Value| match value {
            Value::Text(text) if (1..=4096).contains(&text.len()) && !text.contains('\0') => text.parse().ok(),
            _ => None,
        };
        let wanted = "a folder, as a path or a file:// URL, of 1 to 4096 bytes";
        self.read(key, wanted, read).unwrap_or_else(|| StoreUrl::of_folder(""))
    }

    fn texts(&mut self, key: &str) -> Vec<String> {
        let read = |value: &Value| match value {
            Value::Texts(texts) if texts.iter().all(|text| !text.is_empty()) => Some(texts.clone()),
            _ => None,
        };
        self.read(key, "a list of texts, none empty, such as [\"logs/*.ndjson\"]", read).unwrap_or_default()
    }

    fn null_values(&mut self, key: &str) -> Vec<String> {
        let wanted = format!("a list of at most {NULL_VALUES_MAX} texts of at most {NULL_VALUE_BYTES_MAX} bytes");
        let read = |value: &Value| match value {
            Value::Texts(texts)
                if texts.len() <= NULL_VALUES_MAX && texts.iter().all(|text| text.len() <= NULL_VALUE_BYTES_MAX) =>
            {
                Some(texts.clone())
            }
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or_default()
    }

    fn integer(&mut self, key: &str, range: RangeInclusive<i64>) -> i64 {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let read = |value: &Value| match value {
            Value::Integer(number) if range.contains(number) => Some(*number),
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or(*range.start())
    }

    fn boolean(&mut self, key: &str) -> bool {
        let read = |value: &Value| match value {
            Value::Boolean(answer) => Some(*answer),
            _ => None,
        };
        self.read(key, "true or false", read).unwrap_or_default()
    }

    fn span_ms(&mut self, key: &str, range: RangeInclusive<i64>) -> i64 {
        let (least, most) = (format_span_ms(*range.start()), format_span_ms(*range.end()));
        let wanted = format!("a duration from \"{least}\" to \"{most}\" such as \"250ms\", \"5s\", \"10m\" or \"2h\"");
        let read = |value: &Value| match value {
            Value::Text(text) => parse_span_ms(text).filter(|ms| range.contains(ms)),
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or(*range.start())
    }

    fn duration(&mut self, key: &str, range: RangeInclusive<i64>) -> Duration {
        Duration::from_millis(self.span_ms(key, range).unsigned_abs())
    }

    fn size(&mut self, key: &str, range: RangeInclusive<i64>) -> i64 {
        let (least, most) = (format_size(*range.start()), format_size(*range.end()));
        let wanted = format!("a size from \"{least}\" to \"{most}\" such as \"64KiB\" or \"1MiB\"");
        let read = |value: &Value| match value {
            Value::Text(text) => parse_size(text).filter(|bytes| range.contains(bytes)),
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or(*range.start())
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        let wanted = format!("one of {}", names.join(", "));
        let read = |value: &Value| match value {
            Value::Text(text) => choices.iter().find(|(name, _)| name == text).map(|(_, choice)| *choice),
            _ => None,
        };
        self.read(key, &wanted, read).unwrap_or(choices[0].1)
    }

    fn address(&mut self, key: &str) -> SocketAddr {
        let read = |value: &Value| match value {
            Value::Text(text) => match text.strip_prefix("localhost:") {
                Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from(([127, 0, 0, 1], port))),
                None => text.parse().ok(),
            },
            _ => None,
        };
        let wanted = "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"";
        self.read(key, wanted, read).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    fn key(&mut self, key: &str) -> Option<[u8; 16]> {
        let read = |value: &Value| match value {
            Value::Text(text) if text.is_empty() => Some(None),
            Value::Text(text) if text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                u128::from_str_radix(text, 16).ok().map(|key| Some(key.to_be_bytes()))
            }
            _ => None,
        };
        self.read(key, "32 hex digits, or empty", read).flatten()
    }

    /// What no value can say alone.
    fn fit(&mut self, config: &Config) {
        if !self.problems.is_empty() {
            return; // Values that are wrong by themselves would only be reported twice.
        }
        let Settings { time, source, .. } = &config.run;
        let decode = &*source.tail.decode;
        if time.dedup_horizon_ms < time.allowed_lateness_ms {
            let why = "a duplicate that arrives between the two would be counted again: raise dedup_horizon";
            self.clash("time.dedup_horizon", "must not be less than", "time.allowed_lateness", why);
        }
        if decode.line_bytes_max > source.tail.block_bytes {
            let why = "a line must fit in a block: raise block";
            self.clash("input.max_line", "must not be more than", "input.block", why);
        }
        let names = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];
        let fields = &decode.fields;
        let values =
            [&fields.click_timestamp, &fields.ad_id, &fields.user_id, &fields.ip, &fields.country, &fields.click_id];
        for (at, value) in values.iter().enumerate() {
            if let Some(other) = values[..at].iter().position(|other| other == value) {
                let (one, other) = (format!("input.fields.{}", names[at]), format!("input.fields.{}", names[other]));
                self.clash(&one, "must differ from", &other, "one field of the log cannot be two fields of a click");
            }
        }
    }

    fn clash(&mut self, one: &str, relation: &str, other: &str, why: &str) {
        let shown = |key: &str| {
            let setting = self.raw.get(key);
            setting
                .map(|setting| format!("{key} ({}, {})", setting.value.to_toml(), setting.origin))
                .unwrap_or_default()
        };
        let problem = format!("{} {relation} {}: {why}", shown(one), shown(other));
        self.problems.push(problem);
    }
}
