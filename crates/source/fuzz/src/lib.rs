//! The checks of the fuzz targets: the decoder and the independent parser of the contract must give each line of a text
//! the same verdict and the same fields. A difference is a panic.

mod memory_file;

#[path = "../../src/decode/tests/batch_reading.rs"]
mod batch_reading;
#[path = "../../src/decode/tests/reader.rs"]
mod reader;

use adtally_model::{DecodedBatch, Identity, IdentityKey, InputId};
use adtally_source::{
    Block, DecodeSettings, Decoder, Discovery, Format, FormatChoice, ReadOutcome, TailSettings, Tailer,
};
use memory_file::MemoryFile;
use reader::Reading;
use std::sync::Arc;

/// The configurable minimum, so that short texts contain overlong lines.
const LINE_BYTES_MAX: usize = 1024;

/// First bytes of files that are treated as compressed or undecided: those are not text.
const MAGIC: [&[u8]; 2] = [b"\x1f", b"\x28\xb5"];

/// Checks a text as NDJSON: both paths through the decoder against the independent parser.
///
/// # Panics
/// When they differ.
pub fn check_ndjson(text: &[u8]) {
    let decoder = decoder(FormatChoice::Ndjson);
    let expected = reader::read_json(text, LINE_BYTES_MAX);
    let batch = decoder.decode(block(text.to_vec()));
    assert_eq!(batch_reading::in_order(&batch), expected, "{}", shown(text));

    // A line that is not UTF-8 sends all lines of its block to the general parser.
    let mut general = text.to_vec();
    general.extend_from_slice(b"\n\xff\n");
    let general = decoder.decode(block(general));
    let mut readings = batch_reading::in_order(&general);
    assert_eq!(readings.pop(), Some(Reading::Malformed));
    assert_eq!(readings, expected, "the general reading of {}", shown(text));
    assert_eq!(identities(&general), identities(&batch), "{}", shown(text));
}

/// Checks a text as CSV, read like a file, in blocks and with the header found in it, against the independent parser.
///
/// # Panics
/// When they differ, or when the text is not read to its end.
pub fn check_csv(text: &[u8]) {
    if text.is_empty() || MAGIC.iter().any(|magic| text.starts_with(magic)) || is_skippable_frame(text) {
        return;
    }
    // An unterminated last line counts only after the file has ended.
    let mut text = text.to_vec();
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let decoder = decoder(FormatChoice::Csv);
    let blocks = blocks_of(text.clone(), decoder.settings());
    let readings: Vec<Reading> =
        blocks.into_iter().flat_map(|block| batch_reading::in_order(&decoder.decode(block))).collect();
    assert_eq!(readings, reader::read_csv(&text, LINE_BYTES_MAX), "{}", shown(&text));
}

/// Whether a file may begin with a frame that zstd skips.
fn is_skippable_frame(text: &[u8]) -> bool {
    matches!(text, [0x50..=0x5f, 0x2a, ..])
}

fn decoder(format: FormatChoice) -> Decoder {
    let settings = DecodeSettings { format, line_bytes_max: LINE_BYTES_MAX, ..DecodeSettings::default() };
    Decoder::new(settings, IdentityKey::new([1; 16])).expect("settings that make sense")
}

fn block(text: Vec<u8>) -> Block {
    Block {
        input: InputId(1),
        from: 0,
        to: text.len() as u64,
        text,
        format: Format::Ndjson,
        nul_bytes: 0,
        overlong: false,
    }
}

fn identities(batch: &DecodedBatch) -> &[Identity] {
    &batch.clicks.identity
}

/// Tails a file with this text to its end.
fn blocks_of(text: Vec<u8>, settings: &DecodeSettings) -> Vec<Block> {
    let len = text.len() as u64;
    let tail = TailSettings {
        decode: Arc::new(settings.clone()),
        // The minimum, so that short texts are read in several blocks.
        block_bytes: 2 * LINE_BYTES_MAX,
        bounded: true,
        ..TailSettings::default()
    };
    let path = memory_file::PATH.to_owned();
    let mut tailer = Tailer::new(Box::new(MemoryFile::new(text)), tail, &[path], Vec::new(), 1).expect("a tailer");
    let found = tailer.discover(0).expect("a look");
    let [Discovery::Found { facts, position: 0 }] = &found[..] else { panic!("{found:?}") };
    let (mut blocks, mut position) = (Vec::new(), 0);
    loop {
        match tailer.read(facts.input, 0).expect("an input") {
            ReadOutcome::Block(block) => {
                assert_eq!(block.from, position, "blocks are contiguous");
                position = block.to;
                blocks.push(block);
            }
            ReadOutcome::Busy => {}
            ReadOutcome::Ended => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(position, len, "the text is read to its end");
    blocks
}

fn shown(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_seed(target: &str, check: fn(&[u8])) {
        let folder = format!("{}/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut seeds = 0;
        for entry in std::fs::read_dir(folder).expect("seeds") {
            check(&std::fs::read(entry.expect("an entry").path()).expect("a seed"));
            seeds += 1;
        }
        assert!(seeds > 0);
    }

    #[test]
    fn seeds_of_ndjson() {
        each_seed("ndjson", check_ndjson);
    }

    #[test]
    fn seeds_of_csv() {
        each_seed("csv", check_csv);
    }
}
