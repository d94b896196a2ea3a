//! The files of the model lake: stored files, files in its tables, and files that left them. It records when each file
//! left, and reports a deletion of a file that readers may still read.

use adtally_model::{EpochNumber, Invariant, StagedTable};
use adtally_store::lake::Epochs;
use bytes::Bytes;
use hashbrown::HashSet;
use std::collections::BTreeMap;

/// How long a file may still be read after it left a table, in milliseconds.
pub(crate) const READ_MS: i64 = 24 * 3_600_000;

/// How far the guarded clock of upkeep may be from the wall clock, in milliseconds.
const CLOCK_APART_MS: i64 = 120_000;

/// Most files that one compaction merges.
const GROUP_FILES_MAX: usize = 8;

/// Files with fewer rows than this are compacted again.
const SMALL_ROWS_MAX: u64 = 60;

/// A stored file.
#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    /// When it was written, by the wall clock.
    written_ms: i64,
}

/// A file in a table.
#[derive(Clone, Debug)]
struct Member {
    table: StagedTable,
    partition: u32,
    /// The newest epoch in it.
    epoch: EpochNumber,
    rows: u64,
}

/// When a file left a table.
#[derive(Clone, Copy, Debug)]
struct Left {
    /// The time stamp in the table.
    stamped_ms: i64,
    /// The time by the wall clock.
    at_ms: i64,
}

/// All files.
#[derive(Debug, Default)]
pub(crate) struct LakeFiles {
    stored: BTreeMap<String, Stored>,
    members: BTreeMap<String, Member>,
    left: BTreeMap<String, Left>,
    /// Rows of clicks that retention removed, by partition.
    dropped_rows: BTreeMap<u32, u64>,
    /// Clicks before this time may have been removed.
    kept_from_ms: i64,
    violation: Option<String>,
}

impl LakeFiles {
    /// The content of a file.
    pub(crate) fn get(&self, path: &str) -> Option<Bytes> {
        self.stored.get(path).map(|stored| stored.bytes.clone())
    }

    pub(crate) fn put(&mut self, path: &str, bytes: Bytes, wall_ms: i64) {
        self.stored.insert(path.to_owned(), Stored { bytes, written_ms: wall_ms });
    }

    /// Adds a staged file to its table.
    pub(crate) fn enter(&mut self, path: &str, table: StagedTable, (partition, epoch): (u32, EpochNumber), rows: u64) {
        self.members.insert(path.to_owned(), Member { table, partition, epoch, rows });
    }

    fn leave(&mut self, path: &str, stamped_ms: i64, wall_ms: i64) -> Option<Member> {
        let member = self.members.remove(path)?;
        self.left.insert(path.to_owned(), Left { stamped_ms, at_ms: wall_ms });
        Some(member)
    }

    /// Files of one table and partition that compaction would merge, and their combined content.
    pub(crate) fn group(&self, cut: &Epochs) -> Option<(Vec<String>, Bytes)> {
        let tables = [StagedTable::Clicks, StagedTable::DeadLetters];
        let kinds = cut.iter().flat_map(|of| tables.map(|table| (table, of)));
        kinds.into_iter().find_map(|(table, (partition, last))| {
            let is_small = |member: &Member| member.rows < SMALL_ROWS_MAX && member.epoch <= last;
            let fits = |member: &Member| (member.table, member.partition) == (table, partition) && is_small(member);
            let group = self.members.iter().filter(|(_, member)| fits(member)).map(|(path, _)| path.clone());
            let group: Vec<String> = group.take(GROUP_FILES_MAX).collect();
            let content = group.iter().filter_map(|path| self.get(path)).collect::<Vec<_>>().concat();
            (group.len() > 1).then(|| (group, content.into()))
        })
    }

    /// Replaces a group of files by one. Returns false if one of them has left meanwhile.
    pub(crate) fn replace(&mut self, group: &[String], path: &str, stamped_ms: i64, wall_ms: i64) -> bool {
        if self.members.contains_key(path) {
            return true;
        }
        if !group.iter().all(|path| self.members.contains_key(path)) {
            return false;
        }
        let members: Vec<Member> = group.iter().filter_map(|path| self.leave(path, stamped_ms, wall_ms)).collect();
        let Some(first) = members.first() else { return false };
        let member = Member {
            table: first.table,
            partition: first.partition,
            epoch: members.iter().map(|member| member.epoch).max().unwrap_or_default(),
            rows: members.iter().map(|member| member.rows).sum(),
        };
        self.members.insert(path.to_owned(), member);
        true
    }

    /// Removes files whose clicks are all older than `from_ms`. Returns how many files left.
    pub(crate) fn drop_before(&mut self, from_ms: i64, cut: &Epochs, stamped_ms: i64, wall_ms: i64) -> u64 {
        self.kept_from_ms = self.kept_from_ms.max(from_ms);
        let is_old = |path: &str, member: &Member| {
            let is_held = member.epoch <= cut.last(member.partition);
            member.table == StagedTable::Clicks && is_held && newest_ms(self.get(path)) < Some(from_ms)
        };
        let old: Vec<String> =
            self.members.iter().filter(|(path, member)| is_old(path, member)).map(|(path, _)| path.clone()).collect();
        for path in &old {
            if let Some(member) = self.leave(path, stamped_ms, wall_ms) {
                *self.dropped_rows.entry(member.partition).or_default() += member.rows;
            }
        }
        old.len() as u64
    }

    /// Clicks before this time may have been removed.
    pub(crate) fn kept_from_ms(&self) -> i64 {
        self.kept_from_ms
    }

    /// The texts of a table's files, each with its partition and its newest epoch.
    pub(crate) fn texts(&self, table: StagedTable) -> impl Iterator<Item = (u32, EpochNumber, Bytes)> {
        let of_table = self.members.iter().filter(move |(_, member)| member.table == table);
        of_table.filter_map(|(path, member)| Some((member.partition, member.epoch, self.get(path)?)))
    }

    /// Files written before `ms`.
    pub(crate) fn written_before(&self, ms: i64) -> Vec<String> {
        self.stored.iter().filter(|(_, stored)| stored.written_ms < ms).map(|(path, _)| path.clone()).collect()
    }

    /// Whether the tables say that no reader needs a file any more.
    pub(crate) fn is_unused(&self, path: &str, since_ms: i64) -> bool {
        !self.members.contains_key(path) && self.left.get(path).is_none_or(|left| left.stamped_ms < since_ms)
    }

    /// Deletes a file.
    pub(crate) fn delete(&mut self, path: &str, wall_ms: i64) -> u64 {
        let Some(stored) = self.stored.remove(path) else { return 0 };
        if let Some(left) = self.left.get(path)
            && wall_ms - left.at_ms < READ_MS - CLOCK_APART_MS
        {
            let ms = wall_ms - left.at_ms;
            self.violation.get_or_insert(format!(
                "{}: vacuum deletes {path}, which left its table {ms} ms ago, stamped {left:?}",
                Invariant::LakeEqualsLog
            ));
        }
        stored.bytes.len() as u64
    }

    /// The violation found, if any: a file was deleted although it may be read, or a table names a deleted file.
    pub(crate) fn violation(&self) -> Option<String> {
        if let Some(violation) = &self.violation {
            return Some(violation.clone());
        }
        let missing = self.members.keys().find(|path| !self.stored.contains_key(*path))?;
        Some(format!("{}: {missing} is part of a table and was deleted", Invariant::LakeEqualsLog))
    }

    /// Rows of a partition's clicks in the table, plus those that retention removed.
    pub(crate) fn click_rows(&self, partition: u32) -> u64 {
        let is_of = |member: &&Member| (member.table, member.partition) == (StagedTable::Clicks, partition);
        let rows: u64 = self.members.values().filter(is_of).map(|member| member.rows).sum();
        rows + self.dropped_rows.get(&partition).copied().unwrap_or_default()
    }
}

/// The time of the newest click in a file of the model.
fn newest_ms(content: Option<Bytes>) -> Option<i64> {
    let content = content?;
    let text = std::str::from_utf8(&content).ok()?;
    text.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).max()
}

/// Paths of files.
pub(crate) type Paths = HashSet<String>;
