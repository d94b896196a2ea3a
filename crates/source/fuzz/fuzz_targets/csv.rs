//! Any bytes as a file of CSV: every line must be read as the independent reading reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| adtally_source_fuzz::check_csv(text));
