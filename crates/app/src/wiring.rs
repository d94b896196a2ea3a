//! From configuration to the settings of each room.

use crate::config::{InputConfig, InputFormat, ServeConfig, TimeConfig, TimestampUnit};
use crate::handles;
use adtally_pipeline::TimeSettings;
use adtally_serve::Limits;
use adtally_source::{DecodeSettings, FieldNames, FormatChoice, TailSettings};
use std::sync::Arc;

/// Of the pipeline.
pub fn time_settings(time: &TimeConfig) -> TimeSettings {
    TimeSettings {
        max_future_skew_ms: time.max_future_skew_ms,
        max_jump_ms: time.max_jump_ms,
        out_of_orderness_ms: time.out_of_orderness_ms,
        idle_timeout_ms: time.idle_timeout_ms,
        allowed_lateness_ms: time.allowed_lateness_ms,
        idle_finality_ms: time.idle_finality_ms,
        dedup_horizon_ms: time.dedup_horizon_ms,
        dedup_capacity: time.dedup_capacity,
        alignment_ms: time.alignment_ms,
    }
}

/// Of the decoder.
pub fn decode_settings(input: &InputConfig) -> DecodeSettings {
    DecodeSettings {
        format: match input.format {
            InputFormat::Auto => FormatChoice::Auto,
            InputFormat::Ndjson => FormatChoice::Ndjson,
            InputFormat::Csv => FormatChoice::Csv,
        },
        fields: FieldNames {
            click_timestamp: input.fields.click_timestamp.clone(),
            ad_id: input.fields.ad_id.clone(),
            user_id: input.fields.user_id.clone(),
            ip: input.fields.ip.clone(),
            country: input.fields.country.clone(),
            click_id: input.fields.click_id.clone(),
        },
        timestamp_unit: match input.timestamp_unit {
            TimestampUnit::Seconds => adtally_source::TimestampUnit::Seconds,
            TimestampUnit::Milliseconds => adtally_source::TimestampUnit::Milliseconds,
            TimestampUnit::Microseconds => adtally_source::TimestampUnit::Microseconds,
            TimestampUnit::Nanoseconds => adtally_source::TimestampUnit::Nanoseconds,
        },
        null_values: input.null_values.clone(),
        line_bytes_max: input.max_line,
        csv_delimiter: char::from(input.csv_delimiter),
    }
}

/// Of the file tailer, beside a server with so many connections.
pub fn tail_settings(input: &InputConfig, bounded: bool, connections: usize) -> TailSettings {
    TailSettings {
        open_max: handles::share_of_process(connections).files,
        block_bytes: input.block,
        rotate_wait_ms: input.rotate_wait.as_millis() as i64,
        bounded,
        decode: Arc::new(decode_settings(input)),
        ..TailSettings::default()
    }
}

/// Of the HTTP server.
pub fn limits(serve: &ServeConfig) -> Limits {
    let connections_max = handles::share_of_process(serve.max_connections).connections;
    if connections_max < serve.max_connections {
        tracing::warn!(
            "at most {connections_max} connections at a time instead of {} (serve.max_connections): the process may have too \
             few files open; raise its limit (`ulimit -Hn`)",
            serve.max_connections
        );
    }
    Limits { connections_max, request_timeout: serve.request_timeout, ..Limits::default() }
}
