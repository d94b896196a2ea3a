//! Plans which files are compacted into one, from the table's log and the files' footers, before any row is read.

use super::LakeProgress;
use crate::lake::Table;
use crate::lake::files::{Epochs, FileEntry};
use adtally_model::Minute;
use std::collections::BTreeMap;

/// Maximum bytes of files that become one: larger files are not read faster per byte than one of 32 MiB.
pub(super) const GROUP_BYTES_MAX: u64 = 32 << 20;

/// A fresh file from this size on is not compacted: opening it costs little compared with reading it.
const FRESH_BYTES_MAX: u64 = 1 << 20;

/// Maximum bytes in memory of rows that become one file; sorting them takes twice as much.
const GROUP_MEMORY_MAX: u64 = 192 << 20;

/// Maximum number of files that become one, since each is opened.
const GROUP_FILES_MAX: usize = 256;

/// Small files of the current hour that are enough to compact; fewer wait for its end.
const FILES_MANY: usize = 32;

const HOUR_MINUTES: i64 = 60;
const DAY_MINUTES: i64 = 1_440;

/// Small files of one folder, partition, and hour or day.
pub(super) struct Span<'a> {
    /// Sorted by time.
    pub(super) files: Vec<&'a FileEntry>,
    /// The number of files that is enough to compact them.
    enough: usize,
}

/// The common properties of a span's files.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct SpanKey<'a> {
    folder: &'a str,
    partition: Option<(i64, i64)>,
    /// The first minute of the hour or day.
    begin: i64,
    enough: usize,
}

/// The small files of a table by folder, and by hour, or by day for past days. `held` are the epochs that all tables
/// contain.
pub(super) fn spans<'a>(
    table: Table,
    files: &'a [FileEntry],
    reached: &LakeProgress,
    held: &Epochs,
    final_ms: i64,
) -> Vec<Span<'a>> {
    // Times of reading are compared with the clock, times of clicks with the final frontier.
    let over_ms = match table {
        Table::DeadLetters | Table::Ledger => reached.clock_ms(),
        _ => final_ms,
    };
    let floor = |minute: Minute, minutes: i64| minute.0 - minute.0.rem_euclid(minutes);
    let over = Minute::of(over_ms);
    let mut spans: BTreeMap<SpanKey<'_>, Vec<&FileEntry>> = BTreeMap::new();
    for file in files {
        let Some((least, end)) = file.bounds.time_ms else { continue };
        let is_fresh = reached.fresh_from.iter().any(|(partition, epoch)| file.bounds.reaches(partition, epoch));
        let large = if is_fresh { FRESH_BYTES_MAX } else { GROUP_BYTES_MAX / 2 };
        if file.size >= large || !held.surely_hold(&file.bounds) {
            continue;
        }
        let (least, last) = (Minute::of(least), Minute::of(end - 1));
        let (begin, enough) = match (floor(last, DAY_MINUTES) < floor(over, DAY_MINUTES), table) {
            // Each hour has its own folder.
            (_, Table::Clicks) if floor(last, HOUR_MINUTES) < floor(over, HOUR_MINUTES) => {
                (floor(last, HOUR_MINUTES), 2)
            }
            (_, Table::Clicks) => continue,
            (true, _) => (floor(least, DAY_MINUTES), 2),
            (false, _) if floor(last, HOUR_MINUTES) < floor(over, HOUR_MINUTES) => (floor(least, HOUR_MINUTES), 2),
            (false, _) => (floor(least, HOUR_MINUTES), FILES_MANY),
        };
        let folder = file.path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
        let key = SpanKey { folder, partition: file.bounds.partition, begin, enough };
        spans.entry(key).or_default().push(file);
    }
    let enough_files = spans.into_iter().filter(|(key, files)| files.len() >= key.enough);
    let in_order = |(key, mut files): (SpanKey<'_>, Vec<&'a FileEntry>)| {
        files.sort_by_key(|file| (file.bounds.time_ms, file.bounds.epoch, file.path.clone()));
        Span { files, enough: key.enough }
    };
    enough_files.map(in_order).collect()
}

impl<'a> Span<'a> {
    /// Groups of files, each to become one. `memory` has the bytes of each file's rows. A file that is large in memory
    /// is left as it is, and the files after it are still grouped.
    pub(super) fn groups(&self, memory: &[u64]) -> Vec<Vec<&'a FileEntry>> {
        let files = self.files.iter().copied().zip(memory.iter().copied());
        let small: Vec<(&FileEntry, u64)> = files.filter(|&(_, memory)| memory < GROUP_MEMORY_MAX / 2).collect();
        if small.len() < self.enough {
            return Vec::new();
        }
        let mut groups = vec![Vec::new()];
        let (mut bytes, mut held) = (0, 0);
        for (file, memory) in small {
            let last = groups.last().map_or(0, Vec::len);
            let fits = bytes + file.size <= GROUP_BYTES_MAX && held + memory <= GROUP_MEMORY_MAX;
            if last > 0 && !(fits && last < GROUP_FILES_MAX) {
                groups.push(Vec::new());
                (bytes, held) = (0, 0);
            }
            bytes += file.size;
            held += memory;
            if let Some(group) = groups.last_mut() {
                group.push(file);
            }
        }
        groups.retain(|group| group.len() > 1);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::statistics::Bounds;
    use adtally_model::Progress;
    use object_store::path::Path;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn file(name: usize, size: u64) -> FileEntry {
        let at = name as i64 * 1_000;
        let bounds = Bounds { time_ms: Some((at, at + 1)), partition: Some((0, 0)), epoch: Some((1, 1)), rows: None };
        FileEntry { path: Path::from(format!("{name:04}")), size, bounds }
    }

    /// Groups of files with these sizes and bytes in memory, as the files' indexes.
    fn groups(files: &[(u64, u64)]) -> Vec<Vec<usize>> {
        let entries: Vec<FileEntry> = files.iter().enumerate().map(|(name, &(size, _))| file(name, size)).collect();
        let reached =
            LakeProgress { partitions: vec![Progress { number: 1, ..Progress::default() }], ..LakeProgress::default() };
        let found = spans(Table::ClicksByMinute, &entries, &reached, &reached.epochs(), 2 * DAY_MINUTES * 60_000);
        let Some(span) = found.first() else { return Vec::new() };
        let number = |file: &&FileEntry| file.path.as_ref().parse::<usize>().unwrap();
        let memory: Vec<u64> = span.files.iter().map(|file| files[number(file)].1).collect();
        span.groups(&memory).iter().map(|group| group.iter().map(number).collect()).collect()
    }

    #[test]
    fn a_large_file_is_passed_by_and_those_behind_it_become_one() {
        let small = (MIB, 10 * MIB);
        assert_eq!(groups(&[(2 * MIB, 150 * MIB), small, small]), [vec![1, 2]]);
        assert_eq!(
            groups(&[(2 * MIB, 90 * MIB), (2 * MIB, 95 * MIB), (2 * MIB, 20 * MIB), small]),
            [vec![0, 1], vec![2, 3]]
        );
        assert_eq!(groups(&[(2 * MIB, 300 * MIB), (2 * MIB, 300 * MIB)]), [[0_usize; 0]; 0]);
        assert_eq!(groups(&[small]), [[0_usize; 0]; 0]);
    }

    proptest! {
        /// For files of any size, groups stay within the bounds, and compaction ends after some rounds. Then no two
        /// neighbouring small files fit together.
        #[test]
        fn rounds_end_and_leave_nothing_that_fits(
            sizes in proptest::collection::vec((1..16 * MIB, 1..250 * MIB), 0..40)
        ) {
            let mut files = sizes;
            for round in 0.. {
                prop_assert!(round <= 40, "compaction goes on for ever");
                let found = groups(&files);
                for group in &found {
                    let sum = |of: fn(&(u64, u64)) -> u64| group.iter().map(|&at| of(&files[at])).sum::<u64>();
                    prop_assert!(group.len() > 1 && group.len() <= GROUP_FILES_MAX);
                    prop_assert!(sum(|file| file.0) <= GROUP_BYTES_MAX && sum(|file| file.1) <= GROUP_MEMORY_MAX);
                }
                let Some(group) = found.first() else { break };
                let sum = group.iter().fold((0, 0), |sum, &at| (sum.0 + files[at].0, sum.1 + files[at].1));
                files[group[0]] = sum;
                for &at in group[1..].iter().rev() {
                    files.remove(at);
                }
            }
            let small = |&&(size, memory): &&(u64, u64)| size < GROUP_BYTES_MAX / 2 && memory < GROUP_MEMORY_MAX / 2;
            let left: Vec<&(u64, u64)> = files.iter().filter(small).collect();
            for pair in left.windows(2) {
                let fits = pair[0].0 + pair[1].0 <= GROUP_BYTES_MAX && pair[0].1 + pair[1].1 <= GROUP_MEMORY_MAX;
                prop_assert!(!fits, "two small files that fit together are left: {left:?}");
            }
        }
    }
}
