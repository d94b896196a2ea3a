//! Tests of the format of records: round trips, detected damage, and stability.

use super::{counts, input};
use crate::epoch_log::codec;
use adtally_model::epoch::{Base, Epoch, LiveMinute, MinuteCounts, MinuteIdentities, StagedFile, StagedTable};
use adtally_model::input::origin;
use adtally_model::{
    Country, ErrorKind, Frontiers, Identity, InputLog, InputRow, InputStatus, InputTime, Ledger, Minute, Position,
    Progress, Verdict, Watermark,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;

/// A record in the format of this version, byte by byte: see [`small`].
const GOLDEN: &str = include_str!("../../../tests/golden/epoch_v1.hex");

/// A record with a value in every field.
fn small() -> Epoch {
    let mut ledger = Ledger { conflicting_duplicates: 1, gap_bytes: 9, ..Ledger::default() };
    ledger.book(Verdict::Counted, 3);
    ledger.book(Verdict::Duplicate, 2);
    ledger.book(Verdict::Late, 1);
    let identities =
        MinuteIdentities { minute: Minute(29_453_760), identities: vec![Identity(7), Identity(u128::MAX)] };
    let counted = counts(29_453_760, &[(7, "DE", 1), (7, "US", 200), (i64::MAX as u64, "ZZ", u32::MAX.into())]);
    Epoch {
        progress: Progress {
            source: None,
            topic: None,
            is_retired: false,
            log_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
            partition: 3,
            number: 64,
            clock_ms: 1_767_225_700_000,
            frontiers: Frontiers {
                watermark: Watermark::at(1_767_225_595_000),
                closed: Watermark::at(1_767_225_600_000),
                final_: Watermark::at(-1),
                expired: Watermark::NONE,
            },
            newest_click_ms: Some(1_767_225_600_123),
            largest_guarded_ms: None,
            next_input: 5,
            all_ended: true,
            reopened_from_ms: Some(0),
            gone: Ledger { read: 1, late: 1, ..Ledger::default() },
            ledger,
        },
        writer: u128::MAX - 1,
        predecessor: 12_345,
        oldest_needed: 2,
        claim: false,
        inputs: vec![input(4, Position { from: 10, to: 300 }, ledger).into()],
        counts: vec![counted.clone(), counts(29_453_761, &[(1, "FR", 1)])],
        identities: vec![identities.clone()],
        staged: vec![StagedFile {
            table: StagedTable::Clicks,
            path: "click_date=2026-01-01/click_hour=0/x.parquet".into(),
            size: 1_000,
            rows: 3,
            partition_values: vec![("click_date".into(), "2026-01-01".into())],
            event_time_ms: Some((1, 2)),
            stats: "{\"numRecords\":3}".into(),
            row_hash_sum: None,
        }],
        reconcile: None,
        config_fingerprint: 0xfeed,
        key_fingerprint: 0xbeef,
        base: Some(Box::new(Base {
            inputs: vec![input(4, Position::at(300), ledger).into()],
            minutes: vec![LiveMinute { begun: 1, identities, counts: counted }],
        })),
    }
}

#[test]
fn the_partition_of_a_topic_and_its_retirement_are_kept() {
    let topic = adtally_model::TopicPartition { topic_id: u128::MAX - 5, partition: 7, partitions: 32 };
    for (topic, is_retired) in [(Some(topic), false), (None, true)] {
        let mut epoch = small();
        (epoch.progress.topic, epoch.progress.is_retired) = (topic, is_retired);
        let (bytes, _) = codec::encode(&epoch).unwrap();
        let (read, _) = codec::decode(&bytes).unwrap();
        assert_eq!((read.progress.topic, read.progress.is_retired), (topic, is_retired));
    }
}

#[test]
fn fault_39_the_format_of_version_1_stays_as_it_is() {
    let hex: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes = hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let golden: Vec<u8> = bytes.collect();
    let (epoch, sum) = codec::decode(&golden).unwrap();
    assert_eq!(epoch, small(), "an older record must be read as it was meant");
    assert_eq!(sum.to_le_bytes(), golden[golden.len() - codec::CHECKSUM_BYTES..]);
}

/// A record with a value in every tagged field as well.
fn with_tagged_fields() -> Epoch {
    let mut epoch = small();
    epoch.progress.ledger.nul_bytes = 4_096;
    epoch.progress.gone.nul_bytes = 7;
    let base = epoch.base.as_mut().unwrap();
    for row in epoch.inputs.iter_mut().chain(&mut base.inputs) {
        let row = Arc::make_mut(row);
        row.origin = "logs/before-it-was-rotated.log".into();
        row.ledger.nul_bytes = row.position().to;
        row.file_mut().unwrap().csv_header = Some(b"click_timestamp,ad_id"[..].into());
    }
    epoch
}

#[test]
fn tagged_fields_are_read_back_and_unknown_ones_are_ignored() {
    let epoch = with_tagged_fields();
    let (bytes, sum) = codec::encode(&epoch).unwrap();
    assert_eq!(codec::decode(&bytes).unwrap(), (epoch.clone(), sum));
    // Replaces the tag of the partition's NUL bytes by an unknown one.
    let field = [0, 3, 8, 0, 16, 0, 0, 0, 0, 0, 0];
    let at = bytes.windows(field.len()).position(|window| window == field).unwrap();
    let mut unknown = bytes[..bytes.len() - codec::CHECKSUM_BYTES].to_vec();
    unknown[at + 1] = 99;
    let sum = codec::checksum(&unknown);
    unknown.extend_from_slice(&sum.to_le_bytes());
    let mut without = epoch;
    without.progress.ledger.nul_bytes = 0;
    assert_eq!(codec::decode(&unknown).unwrap(), (without, sum));
}

#[test]
fn fault_17_every_flipped_bit_and_every_cut_is_noticed() {
    let (bytes, _) = codec::encode(&small()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert_eq!(codec::decode(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit} of byte {at}");
        }
        let mut overwritten = bytes.clone();
        overwritten[at] = !overwritten[at];
        assert!(codec::decode(&overwritten).is_err(), "byte {at}");
        assert_eq!(codec::decode(&bytes[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "cut to {at} bytes");
        assert!(codec::decode(&bytes[at + 1..]).is_err(), "begun after {at} bytes");
    }
    for more in [1, 16, 4_096] {
        let longer = [bytes.clone(), vec![0; more]].concat();
        assert_eq!(codec::decode(&longer).unwrap_err().kind(), ErrorKind::Corrupt, "{more} bytes more");
    }
}

#[test]
fn lies_under_a_right_checksum_are_errors_not_panics() {
    let (bytes, _) = codec::encode(&small()).unwrap();
    let content = &bytes[..bytes.len() - codec::CHECKSUM_BYTES];
    for at in 8..content.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut lie = content.to_vec();
            lie[at] = value;
            let sum = codec::checksum(&lie).to_le_bytes();
            lie.extend_from_slice(&sum);
            if let Err(error) = codec::decode(&lie) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{value} at {at}: {error}");
            }
        }
    }
}

#[test]
fn fault_39_a_newer_format_is_refused_by_name() {
    let (mut bytes, _) = codec::encode(&small()).unwrap();
    bytes[8] = 3;
    let check = |bytes: &[u8]| {
        let error = codec::decode(bytes).unwrap_err();
        assert!(error.to_string().contains("format version 3"), "{error}");
    };
    check(&bytes);
    // Also if everything else is correct.
    let content = bytes.len() - codec::CHECKSUM_BYTES;
    let sum = codec::checksum(&bytes[..content]).to_le_bytes();
    bytes[content..].copy_from_slice(&sum);
    check(&bytes);
}

fn any_counts() -> impl Strategy<Value = MinuteCounts> {
    let clicks = any::<i64>().prop_filter("0 is no row", |clicks| *clicks != 0);
    let rows = btree_map((0..=i64::MAX as u64, 0..251_u8), clicks, 0..20);
    (any::<i64>(), rows).prop_map(|(minute, rows)| {
        let mut counts = MinuteCounts::empty(Minute(minute));
        rows.into_iter().for_each(|((ad, rank), clicks)| counts.push(ad, Country::from_rank(rank).unwrap(), clicks));
        counts
    })
}

fn any_identities() -> impl Strategy<Value = MinuteIdentities> {
    (any::<i64>(), vec(any::<u128>(), 0..20)).prop_map(|(minute, identities)| MinuteIdentities {
        minute: Minute(minute),
        identities: identities.into_iter().map(Identity).collect(),
    })
}

fn any_input() -> impl Strategy<Value = Arc<InputRow>> {
    (any::<[u64; 6]>(), ".{0,40}", any::<bool>(), 0..4_usize, option::of(any::<i64>())).prop_map(
        |(numbers, name, compressed, status, largest_ms)| {
            let name: Arc<str> = name.into();
            let mut row = input(numbers[0], Position { from: numbers[1], to: numbers[2] }, Ledger::default());
            let file = row.file_mut().unwrap();
            (file.compressed, file.size, file.generation) = (compressed, numbers[2], numbers[3] as u32);
            let log = if numbers[5].is_multiple_of(3) { InputLog::Records } else { row.log.clone() };
            Arc::new(InputRow {
                origin: origin(&name, numbers[3] as u32),
                name,
                log,
                seen_at_ms: numbers[4] as i64,
                time: InputTime { largest_ms, run: numbers[5] as u32, ..InputTime::default() },
                status: [InputStatus::Holding, InputStatus::Idle, InputStatus::Ended, InputStatus::Released][status],
                ..row
            })
        },
    )
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    let live = (any::<u64>(), any_counts(), any_identities()).prop_map(|(begun, counts, identities)| LiveMinute {
        begun,
        counts,
        identities,
    });
    let base =
        (vec(any_input(), 0..3), vec(live, 0..3)).prop_map(|(inputs, minutes)| Box::new(Base { inputs, minutes }));
    let numbers = (any::<[u128; 3]>(), any::<[u64; 8]>(), any::<[Option<i64>; 7]>(), any::<[bool; 2]>());
    let columns = (vec(any_input(), 0..4), vec(any_counts(), 0..4), vec(any_identities(), 0..4), option::of(base));
    (numbers, columns).prop_map(|((ids, numbers, times, flags), (inputs, counts, identities, base))| {
        let watermark = |at: usize| times[at].map_or(Watermark::NONE, Watermark::at);
        Epoch {
            progress: Progress {
                log_id: ids[0],
                partition: numbers[0] as u32,
                number: numbers[1],
                clock_ms: numbers[3] as i64,
                next_input: numbers[4],
                ledger: Ledger { read: numbers[7], ..Ledger::default() },
                all_ended: flags[1],
                frontiers: Frontiers {
                    watermark: watermark(0),
                    closed: watermark(1),
                    final_: watermark(2),
                    expired: watermark(3),
                },
                newest_click_ms: times[4],
                largest_guarded_ms: times[5],
                reopened_from_ms: times[6],
                ..small().progress
            },
            writer: ids[1],
            predecessor: ids[2],
            oldest_needed: numbers[2],
            config_fingerprint: numbers[5],
            key_fingerprint: numbers[6],
            claim: flags[0],
            inputs,
            counts,
            identities,
            base,
            ..small()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(epoch in any_epoch()) {
        let (bytes, sum) = codec::encode(&epoch).unwrap();
        prop_assert_eq!(codec::encode(&epoch).unwrap().0, bytes.clone(), "the same bytes each time");
        prop_assert_eq!(codec::decode(&bytes).unwrap(), (epoch, sum));
    }

    #[test]
    fn noise_is_an_error(noise in vec(any::<u8>(), 0..200)) {
        prop_assert!(codec::decode(&noise).is_err());
    }
}
