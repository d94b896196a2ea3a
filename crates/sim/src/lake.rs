//! A model of the lake behind its trait: tables that contain each epoch once and are written one after another.

use crate::judge::corrections::clicks_in;
use crate::lake_files::{LakeFiles, Paths, READ_MS};
use crate::machine::Machine;
use crate::plant::Plant;
use crate::servers::{Who, number_in};
use adtally_engine::clock::Clock;
use adtally_model::fold::merge_all;
use adtally_model::{
    DeadLetter, Epoch, EpochNumber, Error, Invariant, Ledger, Minute, MinuteCounts, Progress, Result, StagedFile,
    StagedTable,
};
use adtally_store::lake::{
    ClickRows, EncodedFile, EpochProjection, Epochs, Keep, LakeProgress, LakeStore, RollUp, Table, TableEpochs, Tokens,
    Vacuumed,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

/// The contents of the lake.
#[derive(Debug, Default)]
struct Tables {
    files: LakeFiles,
    partitions: BTreeMap<u32, Partition>,
}

/// The contents of the tables for one partition.
#[derive(Debug, Default)]
struct Partition {
    log_id: Option<u128>,
    held: BTreeMap<Table, EpochNumber>,
    counts: Vec<(EpochNumber, MinuteCounts)>,
    ledger: Option<(EpochNumber, Ledger)>,
    /// The final frontier of the epochs in the ledger.
    final_ms: Option<i64>,
}

/// The tables, which outlive processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedTables(Arc<Mutex<Tables>>);

/// A process's view of them.
pub(crate) struct ModelLake {
    tables: SharedTables,
    machine: Machine,
    plant: Plant,
}

impl SharedTables {
    /// The content of a staged file.
    pub(crate) fn file(&self, path: &str) -> Option<Bytes> {
        self.0.lock().files.get(path)
    }

    /// The last epoch of a partition that all tables contain.
    pub(crate) fn held_by_all(&self, partition: u32) -> EpochNumber {
        let tables = self.0.lock();
        let Some(partition) = tables.partitions.get(&partition) else { return 0 };
        let held = Table::PROJECTED.iter().map(|table| partition.held.get(table).copied().unwrap_or_default());
        held.min().unwrap_or_default()
    }

    /// The last epoch of a partition that any table contains.
    pub(crate) fn held_by_one(&self, partition: u32) -> EpochNumber {
        let tables = self.0.lock();
        let held = tables.partitions.get(&partition).into_iter().flat_map(|partition| partition.held.values());
        held.copied().max().unwrap_or_default()
    }

    /// All counts of a partition's epochs up to `last`.
    pub(crate) fn counts(&self, partition: u32, last: EpochNumber) -> BTreeMap<Minute, MinuteCounts> {
        let mut minutes: BTreeMap<Minute, Vec<MinuteCounts>> = BTreeMap::new();
        let tables = self.0.lock();
        let counts = tables.partitions.get(&partition).into_iter().flat_map(|partition| &partition.counts);
        for (_, counts) in counts.filter(|(epoch, _)| *epoch <= last) {
            minutes.entry(counts.minute).or_default().push(counts.clone());
        }
        drop(tables);
        minutes.into_iter().map(|(minute, parts)| (minute, merge_all(minute, parts))).collect()
    }

    /// Up to where a partition's minutes are final, by the ledger in the lake.
    pub(crate) fn final_ms(&self, partition: u32) -> Option<i64> {
        self.0.lock().partitions.get(&partition)?.final_ms
    }

    /// Clicks before this time may have been removed.
    pub(crate) fn kept_from_ms(&self) -> i64 {
        self.0.lock().files.kept_from_ms()
    }

    /// All stored clicks, but those of one partition if it is named.
    pub(crate) fn stored(&self, ignored: Option<u32>) -> BTreeSet<Who> {
        let tables = self.0.lock();
        let texts = tables.files.texts(StagedTable::Clicks).filter(|&(partition, ..)| Some(partition) != ignored);
        let clicks = texts.flat_map(|(.., text)| clicks_in(&String::from_utf8_lossy(&text)).unwrap_or_default());
        clicks.map(|(who, _)| who).collect()
    }

    /// The numbers of a partition's late lines, in the epochs that the ledger has.
    pub(crate) fn late_lines(&self, partition: u32) -> Vec<usize> {
        let held = self.held_by_all(partition);
        let tables = self.0.lock();
        let of_partition = |&(of, epoch, _): &(u32, EpochNumber, Bytes)| of == partition && epoch <= held;
        let texts = tables.files.texts(StagedTable::DeadLetters).filter(of_partition);
        let late = |text: &Bytes| -> Vec<usize> {
            let text = String::from_utf8_lossy(text);
            text.lines().filter(|line| line.starts_with("late ")).filter_map(number_in).collect()
        };
        texts.flat_map(|(.., text)| late(&text)).collect()
    }

    /// A violation found in the files.
    pub(crate) fn violation(&self) -> Option<String> {
        self.0.lock().files.violation()
    }

    /// Rows of a partition's clicks that the table has or had, and the last epoch that it contains.
    pub(crate) fn click_rows(&self, partition: u32) -> (u64, EpochNumber) {
        let tables = self.0.lock();
        let held = tables.partitions.get(&partition).and_then(|of| of.held.get(&Table::Clicks).copied());
        (tables.files.click_rows(partition), held.unwrap_or_default())
    }

    /// A partition's newest ledger, and its epoch.
    pub(crate) fn ledger(&self, partition: u32) -> Option<(EpochNumber, Ledger)> {
        self.0.lock().partitions.get(&partition)?.ledger
    }

    /// Projects an epoch whose record does not exist yet: a planted bug.
    pub(crate) fn tell_early(&self, epoch: &Epoch) {
        let projection = EpochProjection {
            progress: epoch.progress,
            counts: epoch.counts.clone().into(),
            staged: epoch.staged.clone(),
            inputs: Arc::default(),
            correction: None,
        };
        for table in Table::PROJECTED {
            // If the lake is behind, the epoch is projected later, as usual.
            let _ = self.write(table, std::slice::from_ref(&projection));
        }
    }

    /// Adds epochs of all their partitions in one step, or none.
    fn write(&self, table: Table, epochs: &[EpochProjection]) -> Result<()> {
        let of_one = |one: &EpochProjection, next: &EpochProjection| one.progress.partition == next.progress.partition;
        epochs.chunk_by(of_one).try_for_each(|epochs| self.write_partition(table, epochs))
    }

    fn write_partition(&self, table: Table, epochs: &[EpochProjection]) -> Result<()> {
        let mut tables = self.0.lock();
        let Some(&Progress { log_id, partition, .. }) = epochs.first().map(|epoch| &epoch.progress) else {
            return Ok(());
        };
        let Tables { files, partitions } = &mut *tables;
        let tables = partitions.entry(partition).or_default();
        if *tables.log_id.get_or_insert(log_id) != log_id {
            return Err(Error::corrupt(format!("the lake table `{table}` holds epochs of another log")));
        }
        let held = tables.held.get(&table).copied().unwrap_or_default();
        let pending = &epochs[epochs.partition_point(|epoch| epoch.progress.number <= held)..];
        let (Some(first), Some(last)) = (pending.first(), pending.last()) else { return Ok(()) };
        if first.progress.number != held + 1 {
            let what = format!("`{table}` holds epoch {held}, and the next is {}", first.progress.number);
            return Err(Error::violated(Invariant::LakeEqualsLog, what));
        }
        for epoch in pending {
            for file in epoch.staged.iter().filter(|file| table_of(file) == table) {
                if files.get(&file.path).is_none() {
                    let what = format!("epoch {} names {}, which was never staged", epoch.progress.number, file.path);
                    return Err(Error::violated(Invariant::LakeEqualsLog, what));
                }
                files.enter(&file.path, file.table, (partition, epoch.progress.number), file.rows);
            }
            match table {
                Table::ClicksByMinute => {
                    let counts = epoch.counts.iter().map(|counts| (epoch.progress.number, counts.clone()));
                    tables.counts.extend(counts);
                }
                Table::Ledger => {
                    tables.ledger = Some((epoch.progress.number, epoch.progress.ledger));
                    tables.final_ms = epoch.progress.frontiers.final_.get();
                }
                _ => {}
            }
        }
        tables.held.insert(table, last.progress.number);
        Ok(())
    }
}

fn table_of(file: &StagedFile) -> Table {
    match file.table {
        StagedTable::Clicks => Table::Clicks,
        StagedTable::DeadLetters => Table::DeadLetters,
    }
}

impl ModelLake {
    pub(crate) fn new(tables: SharedTables, machine: Machine, plant: Plant) -> ModelLake {
        ModelLake { tables, machine, plant }
    }

    /// The time that upkeep stamps on files that leave a table.
    fn stamp_ms(&self, reached: &LakeProgress) -> i64 {
        match self.plant {
            Plant::TombstonesByOldClock => reached.clock_ms(),
            _ => reached.now_ms,
        }
    }

    /// One step of the lake, with all faults that may occur around it.
    fn step<T>(&self, name: &'static str, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        self.machine.crash_point(name, 1);
        if self.machine.fails(name, 1) {
            return Err(Error::transient("the lake fails"));
        }
        let result = operation()?;
        self.machine.crash_point(name, 1);
        if self.machine.loses_reply(name, 1) {
            return Err(Error::transient("the lake fails late"));
        }
        Ok(result)
    }
}

fn encoded(
    table: StagedTable,
    (partition, epoch): (u32, EpochNumber),
    token: u128,
    rows: usize,
    text: String,
) -> EncodedFile {
    let name = if table == StagedTable::Clicks { "clicks" } else { "dead_letters" };
    let staged = StagedFile {
        table,
        path: format!("{name}-{partition}-{epoch}-{token:032x}"),
        size: text.len() as u64,
        rows: rows as u64,
        partition_values: Vec::new(),
        event_time_ms: None,
        stats: String::new(),
        row_hash_sum: None,
    };
    EncodedFile { staged, bytes: text.into() }
}

#[async_trait]
impl LakeStore for ModelLake {
    /// A click is a line `event time, ad, user, address, click id, country`; a dead letter is a line `verdict, event
    /// time, payload`.
    fn encode(
        &self,
        clicks: &[ClickRows<'_>],
        letters: &[DeadLetter],
        (partition, epoch): (u32, EpochNumber),
        file_token: u128,
    ) -> Result<Vec<EncodedFile>> {
        let (mut text, mut rows) = (String::new(), 0);
        for part in clicks {
            for &row in part.rows {
                let click = part.batch.get(row as usize);
                let (user, click_id) =
                    (String::from_utf8_lossy(click.user_id), String::from_utf8_lossy(click.click_id));
                let (at, ad, ip, country) = (click.event_time_ms, click.ad_id, click.ip, click.country.as_str());
                let _ = writeln!(text, "{at} {ad} {user} {ip} {country} {click_id}");
                rows += 1;
            }
        }
        let mut files = Vec::new();
        if rows > 0 {
            files.push(encoded(StagedTable::Clicks, (partition, epoch), file_token, rows, text));
        }
        if !letters.is_empty() {
            let mut text = String::new();
            for letter in letters {
                let payload = String::from_utf8_lossy(&letter.payload);
                let _ = writeln!(text, "{} {payload}", letter.verdict);
            }
            files.push(encoded(StagedTable::DeadLetters, (partition, epoch), file_token, letters.len(), text));
        }
        Ok(files)
    }

    async fn stage(&self, files: &[EncodedFile]) -> Result<()> {
        for file in files {
            self.machine.note("stage", &file.staged.path);
            self.step("stage a file", || {
                let now_ms = self.machine.wall_ms();
                self.tables.0.lock().files.put(&file.staged.path, file.bytes.clone(), now_ms);
                Ok(())
            })?;
        }
        Ok(())
    }

    async fn held(&self, log_id: u128, partition: u32) -> Result<TableEpochs> {
        self.step("look into the lake", || {
            let mut tables = self.tables.0.lock();
            let tables = tables.partitions.entry(partition).or_default();
            if tables.log_id.is_some_and(|known| known != log_id) {
                return Err(Error::corrupt("the lake holds epochs of another log"));
            }
            Ok(TableEpochs { tables: Table::PROJECTED.map(|table| (table, tables.held.get(&table).copied())).to_vec() })
        })
    }

    async fn project(&self, epochs: &[EpochProjection], _: u128) -> Result<()> {
        for table in Table::PROJECTED {
            self.machine.note("project to", &table);
            self.step("project to a table", || self.tables.write(table, epochs))?;
        }
        Ok(())
    }

    async fn minute_counts(&self, from: Minute, to: Minute, cut: &Epochs) -> Result<Vec<MinuteCounts>> {
        self.step("read counts", || {
            let of_partition = |(partition, epoch): (u32, EpochNumber)| {
                let last = epoch.min(self.tables.held_by_all(partition));
                self.tables.counts(partition, last).into_values()
            };
            let counts = cut.iter().flat_map(of_partition);
            Ok(counts.filter(|counts| (from..to).contains(&counts.minute)).collect())
        })
    }

    async fn roll_up(&self, _: RollUp, _: &LakeProgress, _: Tokens<'_>) -> Result<bool> {
        // The model has no tables of sums.
        self.step("roll up", || Ok(false))
    }

    async fn retain(&self, keep: &Keep, reached: &LakeProgress) -> Result<u64> {
        let Some(final_ms) = reached.final_ms() else { return Ok(0) };
        let from_ms = final_ms.min(reached.clock_ms()) - keep.clicks_ms;
        let (stamp_ms, now_ms) = (self.stamp_ms(reached), self.machine.wall_ms());
        self.step("drop", || Ok(self.tables.0.lock().files.drop_before(from_ms, &reached.epochs(), stamp_ms, now_ms)))
    }

    async fn compact(&self, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<Option<u64>> {
        let group = self.step("plan a compaction", || Ok(self.tables.0.lock().files.group(&reached.epochs())))?;
        let Some((group, content)) = group else { return Ok(None) };
        let (path, bytes) = (format!("compacted-{:032x}", tokens()), content.len() as u64);
        self.machine.note("compact into", &path);
        let now_ms = self.machine.wall_ms();
        self.step("write a compacted file", || {
            self.tables.0.lock().files.put(&path, content, now_ms);
            Ok(())
        })?;
        let stamp_ms = self.stamp_ms(reached);
        self.step("commit a compaction", || {
            let replaced = self.tables.0.lock().files.replace(&group, &path, stamp_ms, now_ms);
            Ok(replaced.then_some(bytes))
        })
    }

    async fn vacuum(&self, reached: &LakeProgress, named: BoxFuture<'_, Result<Paths>>) -> Result<Vacuumed> {
        let since_ms = reached.now_ms - READ_MS;
        let old = self.step("list files", || Ok(self.tables.0.lock().files.written_before(since_ms)))?;
        let named = named.await?;
        let mut vacuumed = Vacuumed::default();
        for path in old.iter().filter(|path| !named.contains(path.as_str())) {
            if !self.tables.0.lock().files.is_unused(path, since_ms) {
                continue;
            }
            self.machine.note("vacuum", path);
            vacuumed.bytes += self.step("vacuum a file", || {
                let now_ms = self.machine.wall_ms();
                Ok(self.tables.0.lock().files.delete(path, now_ms))
            })?;
            vacuumed.files += 1;
        }
        Ok(vacuumed)
    }
}
