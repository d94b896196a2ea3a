//! Reads arbitrary bytes as an NDJSON file: the decoder and the independent parser must agree on every line.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| adtally_source_fuzz::check_ndjson(text));
