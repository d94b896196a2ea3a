//! Records become blocks: holes, stamps, formats, poison.

use super::*;
use crate::block::{Format, RecordBlock};
use crate::decode::{DecodeSettings, Decoder};
use crate::file_tail::ReadOutcome;
use crate::source::{Source, SourceBlock};
use adtally_model::{
    Error, ErrorKind, IdentityKey, InputId, LaneId, PartitionState, Position, RecordTime, Result, Verdict,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// A record that a reader will deliver.
#[derive(Clone, Default)]
struct Stored {
    offset: u64,
    value: Vec<u8>,
    stamp: Option<(&'static str, &'static str, &'static str)>,
    csv: Option<&'static str>,
    gap: Option<&'static str>,
}

/// Delivers records, and then its end.
struct Fake {
    records: VecDeque<Stored>,
    end: Box<dyn Fn() -> Result<Polled> + Send>,
}

impl RecordReader for Fake {
    fn poll(&mut self, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<Polled> {
        let Some(stored) = self.records.pop_front() else { return (self.end)() };
        let stamp = stored.stamp;
        take(RawRecord {
            offset: stored.offset,
            value: &stored.value,
            input: stamp.map(|stamp| stamp.0.as_bytes()),
            watermark: stamp.map(|stamp| stamp.1.as_bytes()),
            sequence: stamp.map(|stamp| stamp.2.as_bytes()),
            csv: stored.csv.map(str::as_bytes),
            gap: stored.gap.map(str::as_bytes),
        });
        Ok(Polled::Record)
    }

    fn lag(&self) -> Option<u64> {
        Some(self.records.len() as u64)
    }
}

const ROUTING: Routing = Routing { partitioner: Partitioner::Murmur2, partition: 0, partitions: 1 };

fn source(records: Vec<Stored>, end: impl Fn() -> Result<Polled> + Send + 'static) -> KafkaPartition {
    let fake = Fake { records: records.into(), end: Box::new(end) };
    KafkaPartition::new(
        Box::new(fake),
        "t/0",
        ROUTING,
        Arc::new(DecodeSettings::default()),
        &PartitionState::default(),
        5,
    )
}

fn block(source: &mut KafkaPartition) -> RecordBlock {
    match source.read(LaneId(0), 0).unwrap() {
        ReadOutcome::Block(SourceBlock::Records(block)) => block,
        other => panic!("{other:?}"),
    }
}

fn line(ad: u64) -> String {
    format!("{{\"click_timestamp\":1748822400000,\"ad_id\":{ad},\"user_id\":\"u\",\"ip\":\"10.0.0.1\"}}")
}

#[test]
fn holes_are_part_of_the_next_record_and_lines_get_their_ends() {
    let plain = |offset, value: String| Stored { offset, value: value.into_bytes(), ..Stored::default() };
    let records = vec![
        plain(7, line(1)),
        // Two lines of another producer, and a record without a value.
        plain(8, line(2) + "\n" + &line(3) + "\n"),
        plain(12, String::new()),
    ];
    let mut source = source(records, || Ok(Polled::AtEnd));
    let block = block(&mut source);
    let positions: Vec<Position> = block.records.iter().map(|record| record.position).collect();
    assert_eq!(positions, [(5, 8), (8, 9), (9, 13)].map(|(from, to)| Position { from, to }));
    assert_eq!(block.found, [(InputId(1), "t/0".into())]);
    assert!(block.records.iter().all(|record| record.time == RecordTime::Guarded));
    let decoded = Decoder::new(DecodeSettings::default(), IdentityKey::new([1; 16])).unwrap().decode_records(block);
    assert_eq!(decoded.clicks.ad_id, [1, 2, 3]);
    assert!(matches!(source.read(LaneId(0), 0).unwrap(), ReadOutcome::AtEnd));
}

#[test]
fn stamps_name_inputs_and_their_watermarks() {
    let stamped =
        |offset, stamp| Stored { offset, value: line(1).into_bytes(), stamp: Some(stamp), ..Stored::default() };
    let records = vec![
        stamped(5, ("a", "", "1")),
        stamped(6, ("b", "1748822400000", "1")),
        stamped(7, ("a", "-5", "2")),
        // Not of an agent: a number that is none, an empty name, a name that is too long for one.
        stamped(8, ("a", "soon", "3")),
        stamped(9, ("", "", "1")),
    ];
    let mut source = source(records, || Ok(Polled::Nothing));
    let block = block(&mut source);
    let names: Vec<&str> = block.found.iter().map(|(_, name)| &**name).collect();
    assert_eq!(names, ["a", "b", "t/0"]);
    let of: Vec<(u64, RecordTime)> = block.records.iter().map(|record| (record.input.0, record.time)).collect();
    let stamp = |ms| RecordTime::Stamped(ms);
    let expected = [
        (1, stamp(None)),
        (2, stamp(Some(1_748_822_400_000))),
        (1, stamp(Some(-5))),
        (3, RecordTime::Guarded),
        (3, RecordTime::Guarded),
    ];
    assert_eq!(of, expected);
    assert!(matches!(source.read(LaneId(0), 0).unwrap(), ReadOutcome::Waits), "it is not known to be at its end");
}

#[test]
fn a_block_has_lines_of_one_format() {
    let csv = |offset, header| Stored {
        offset,
        value: b"1748822400000,7,u,10.0.0.1\n".to_vec(),
        csv: Some(header),
        ..Stored::default()
    };
    let header = "click_timestamp,ad_id,user_id,ip";
    let json = Stored { offset: 5, value: line(1).into_bytes(), ..Stored::default() };
    let records = vec![json, csv(6, header), csv(7, header), csv(8, "click_timestamp,user_id,ad_id,ip")];
    let mut source = source(records, || Ok(Polled::AtEnd));
    let decoder = Decoder::new(DecodeSettings::default(), IdentityKey::new([1; 16])).unwrap();
    let mut found = Vec::new();
    for _ in 0..3 {
        let block = block(&mut source);
        let is_csv = matches!(block.format, Format::Csv(_));
        let positions = (block.records.first().unwrap().position.from, block.records.last().unwrap().position.to);
        let decoded = decoder.decode_records(block);
        found.push((is_csv, positions, decoded.clicks.len(), decoded.rejected.len()));
    }
    assert_eq!(found, [(false, (5, 6), 1, 0), (true, (6, 8), 2, 0), (true, (8, 9), 0, 1)]);
}

#[test]
fn records_that_are_missing_are_told_once() {
    let stamped = |offset, sequence| Stored { offset, stamp: Some(("a", "", sequence)), ..Stored::default() };
    // An agent that starts again begins with 1.
    let records = vec![stamped(5, "1"), stamped(6, "2"), stamped(7, "5"), stamped(8, "1"), stamped(9, "2")];
    let mut source = source(records, || Ok(Polled::AtEnd));
    block(&mut source);
    let told = source.new_warnings();
    assert!(
        matches!(&told[..], [warning] if warning.starts_with("a: 2 records before offset 7 are missing")),
        "{told:?}"
    );
    assert_eq!(source.new_warnings(), Vec::<String>::new());
}

#[test]
fn misrouted_clicks_are_invalid_and_keep_their_places() {
    let routing = Routing { partitions: 4, ..ROUTING };
    let text: String = (0..40).map(|ad| line(ad) + "\n").collect();
    let stored = Stored { offset: 5, value: (text + "broken\n").into_bytes(), ..Stored::default() };
    let fake = Fake { records: [stored].into(), end: Box::new(|| Ok(Polled::AtEnd)) };
    let settings = Arc::new(DecodeSettings::default());
    let mut source = KafkaPartition::new(Box::new(fake), "t/0", routing, settings, &PartitionState::default(), 5);
    let decoder = Decoder::new(DecodeSettings::default(), IdentityKey::new([1; 16])).unwrap();
    let decoded = decoder.decode_records(block(&mut source));
    let own: Vec<u64> = (0..40).filter(|&ad| Partitioner::Murmur2.partition_of(ad, 4) == 0).collect();
    assert_eq!(decoded.clicks.ad_id, own);
    assert_eq!(decoded.clicks.len() + decoded.rejected.len(), 41);
    assert!(decoded.rejected.is_sorted_by_key(|rejected| rejected.line_start));
    let misrouted =
        decoded.rejected.iter().filter(|rejected| rejected.reason.starts_with("ad_id: misrouted: belongs to"));
    assert_eq!(misrouted.count(), 40 - own.len());
    assert_eq!(decoded.rejected.last().map(|rejected| rejected.verdict), Some(Verdict::Malformed));
}

#[test]
fn lost_offsets_become_a_gap_of_a_known_input() {
    let stored = Stored { offset: 9, value: line(1).into_bytes(), ..Stored::default() };
    let mut source = source(vec![stored], || Ok(Polled::AtEnd)).with_gap(4);
    assert_eq!(source.discover(0).unwrap(), [], "no input is known");
    let first = block(&mut source);
    assert_eq!((first.records.len(), first.found), (0, vec![(InputId(1), "t/0".into())]));
    let gaps = source.discover(0).unwrap();
    assert!(matches!(gaps[..], [crate::Discovery::LostOffsets { input: InputId(1), offsets: 4 }]), "{gaps:?}");
    assert_eq!(source.discover(0).unwrap(), []);
    // The epoch that books the gap moves the position past it. Records must not do so before.
    assert!(matches!(source.read(LaneId(0), 0).unwrap(), ReadOutcome::Waits));
    source.gap_booked(InputId(1));
    assert_eq!(block(&mut source).records[0].position, Position { from: 9, to: 10 });
}

#[test]
fn errors_of_the_topic_stop_the_source_and_outages_do_not() {
    let mut lost = source(Vec::new(), || Err(Error::corrupt("offsets are lost")));
    assert_eq!(lost.read(LaneId(0), 0).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut away = source(Vec::new(), || Ok(Polled::Unreachable(Error::transient("no broker"))));
    assert!(matches!(away.read(LaneId(0), 0).unwrap(), ReadOutcome::Unreadable(_)));
}

#[test]
fn gaps_of_an_agent_are_booked_once() {
    let stored = |offset, gap| Stored { offset, stamp: Some(("a", "", "1")), gap, ..Stored::default() };
    let mut source = source(vec![stored(5, Some("30")), stored(6, None), stored(7, Some("30"))], || Ok(Polled::AtEnd));
    assert_eq!(block(&mut source).records.len(), 3);
    let gaps = source.take_gaps();
    assert!(matches!(gaps[..], [crate::Discovery::Gap { input: InputId(1), bytes: 30, .. }]), "{gaps:?}");
    assert_eq!(source.take_gaps(), []);
}
