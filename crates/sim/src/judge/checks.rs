//! Checks beside those of each record: the fold, the lake, the results shown to readers, and the end.

use super::*;

impl Judge {
    /// Notes a process that makes everything final at its end.
    pub(crate) fn note_final_run(&mut self, writer: u128) {
        self.final_runs.insert(writer);
    }

    /// Checks a finished bounded run: every minute with a click must be closed. If all could be read, every line in
    /// `readable` must be read, and final if requested; otherwise nothing more may be final. `readable` are the numbers
    /// of the lines that could be read when the run began.
    pub(crate) fn check_bounded(
        &self,
        process: &Process,
        unread: &[String],
        servers: &Servers,
        readable: &[usize],
    ) -> Verdict {
        let (ending, is_whole) = (process.ending, unread.is_empty());
        let final_before = process.taken.get(&self.partition).map(|taken| taken.final_before).unwrap_or_default();
        let newest_end = self.counts.keys().next_back().map_or(0, |newest| newest.end_ms());
        let became_final = self.frontiers.final_.reached(newest_end) && !final_before.reached(newest_end);
        ensure(is_whole || !became_final, Invariant::FinalIsFinal, || {
            format!("all is final, although {unread:?} could not be read")
        })?;
        for minute in self.counts.keys() {
            ensure(self.frontiers.closed.reached(minute.end_ms()), Invariant::FinalIsFinal, || {
                format!("minute {} has a counted click and is not closed by a bounded run", minute.0)
            })?;
            let is_final = self.frontiers.final_.reached(minute.end_ms());
            ensure(is_final || !is_whole || ending != Ending::Final, Invariant::FinalIsFinal, || {
                format!("minute {} has a counted click and is not final", minute.0)
            })?;
        }
        if !is_whole || servers.copied {
            return Ok(());
        }
        for (number, line) in readable.iter().filter_map(|number| Some((number, servers.lines.get(*number)?))) {
            let is_counted = matches!(&line.content, Content::Click(click) if self.counted.contains(&click.who));
            let is_known = is_counted || self.letters.contains_key(number) || line.may_be_lost;
            ensure(is_known, Invariant::Conservation, || {
                format!("line {number} at {} was not read by a bounded run, which did not say so", line.at)
            })?;
        }
        Ok(())
    }

    /// Checks a run that stopped in order: its lines must be committed, and in the lake unless it gave up projecting.
    pub(crate) fn check_stopped(&self, lines: u64, gave_up: bool, tables: &SharedTables) -> Verdict {
        ensure(lines <= self.ledger.read, Invariant::Conservation, || {
            format!("a run that had read {lines} lines ends without an error, {} are committed", self.ledger.read)
        })?;
        let held = tables.held_by_all(self.partition);
        ensure(gave_up || held == self.head(), Invariant::LakeEqualsLog, || {
            format!("a run ends without an error, the lake holds epoch {held}, the log ends at {}", self.head())
        })
    }

    /// Acknowledged records must still exist unchanged, unless they are no longer needed.
    pub(crate) fn check_kept(&self, disk: &Disk) -> Verdict {
        let oldest_needed = self.records.last().map_or(1, |known| known.oldest_needed);
        for (at, known) in self.records.iter().enumerate() {
            let number = at as EpochNumber + 1;
            let superfluous = number > 1 && number < oldest_needed && number + KEPT <= self.head();
            match disk.read(&self.path_of(number)) {
                Ok(bytes) => {
                    // After a record was deleted, a late writer may create another one, which nobody reads.
                    let same = bytes.ends_with(&known.checksum.to_le_bytes());
                    ensure(same || superfluous, Invariant::LinearChain, || {
                        format!("record {number} is not what it was")
                    })?;
                }
                Err(_) => ensure(superfluous, Invariant::LinearChain, || format!("record {number} is gone"))?,
            }
        }
        Ok(())
    }

    /// The state folded from the log must equal the sum of its records.
    pub(crate) fn check_fold(&self, state: &PartitionState) -> Verdict {
        let head = self.records.last().map_or(0, |known| known.checksum);
        ensure(state.progress.number == self.head() && state.checksum == head, Invariant::LinearChain, || {
            format!("the fold ends at epoch {}, the log at {}", state.progress.number, self.head())
        })?;
        ensure(
            state.progress.ledger == self.ledger && state.inputs.len() == self.inputs.len(),
            Invariant::Conservation,
            || {
                format!(
                    "the fold has {:?} of {} inputs, the log {:?}",
                    state.progress.ledger,
                    state.inputs.len(),
                    self.ledger
                )
            },
        )?;
        for (&minute, rows) in self.counts.iter().filter(|(minute, _)| self.frontiers.is_live(**minute)) {
            let folded = state.live.get(&minute);
            let mut found = Rows::new();
            folded.iter().flat_map(|folded| &folded.counts).for_each(|counts| add_rows(&mut found, counts));
            ensure(found == *rows, Invariant::Conservation, || {
                format!("the fold has {found:?} in minute {}, the log {rows:?}", minute.0)
            })?;
            let clicks: i64 = rows.values().sum();
            let identities = folded.map_or(0, |folded| folded.identities.len());
            ensure(i64::try_from(identities) == Ok(clicks), Invariant::NoDoubleCount, || {
                format!("the fold has {identities} identities of {clicks} clicks in minute {}", minute.0)
            })?;
        }
        Ok(())
    }

    /// The lake must contain exactly what the records up to its epoch say.
    pub(crate) fn check_lake(&self, tables: &SharedTables) -> Verdict {
        let held = tables.held_by_all(self.partition);
        ensure(held <= self.head(), Invariant::LakeEqualsLog, || {
            format!("the lake holds epoch {held}, the log ends at {}", self.head())
        })?;
        let mut expected: BTreeMap<Minute, Rows> = BTreeMap::new();
        for counts in self.records.iter().take(held as usize).flat_map(|known| &known.counts) {
            add_rows(expected.entry(counts.minute).or_default(), counts);
        }
        if let Some(violation) = tables.violation() {
            return Err(violation);
        }
        let (rows, held_clicks) = tables.click_rows(self.partition);
        let counted = self.records.iter().take(held_clicks as usize).flat_map(|known| &known.counts);
        let counted: i64 = counted.map(MinuteCounts::total).sum();
        ensure(i64::try_from(rows) == Ok(counted), Invariant::LakeEqualsLog, || {
            format!("the table of clicks has {rows} rows at epoch {held_clicks}, of {counted} clicks")
        })?;
        let lake = tables.counts(self.partition, held);
        let found: BTreeMap<Minute, Rows> =
            lake.iter().map(|(&minute, counts)| (minute, rows_of(Some(counts)))).collect();
        ensure(found == expected, Invariant::LakeEqualsLog, || {
            format!("the lake at epoch {held} has {found:?}, the log {expected:?}")
        })?;
        if let Some((epoch, ledger)) = tables.ledger(self.partition).filter(|&(epoch, _)| epoch <= self.head()) {
            let known = self.records.get(epoch as usize - 1).map(|known| known.ledger);
            ensure(known == Some(ledger), Invariant::LakeEqualsLog, || {
                format!("the ledger of epoch {epoch} is {ledger:?} in the lake and {known:?} in the log")
            })?;
        }
        Ok(())
    }

    /// Every file named by a record must exist.
    pub(crate) fn check_staged(&self, disk: &Disk, tables: &SharedTables) -> Verdict {
        for number in 1..=self.head() {
            let Ok(bytes) = disk.read(&self.path_of(number)) else { continue };
            let Ok((epoch, _)) = codec::decode(bytes) else { continue };
            for file in &epoch.staged {
                text_of(tables, file)?;
            }
        }
        Ok(())
    }

    /// Readers must now see the committed results, and never less than they saw before. A process may not yet know that
    /// its last record was created.
    pub(crate) fn check_told(&mut self, taken: &Taken, tables: &SharedTables) -> Verdict {
        let snapshot = taken.hot.snapshot();
        let is_unseen = snapshot.progress.number + 1 == self.head() && taken.is_committing();
        if self.told_epoch == self.head() || is_unseen {
            return Ok(());
        }
        self.told_epoch = self.head();
        ensure(snapshot.progress.number == self.head(), Invariant::LakeEqualsLog, || {
            format!("readers see epoch {}, the log ends at {}", snapshot.progress.number, self.head())
        })?;
        let mut seen = BTreeMap::new();
        for (&minute, rows) in &self.counts {
            let shown = shown(&snapshot, minute, tables);
            ensure(shown == *rows, Invariant::LakeEqualsLog, || {
                format!("readers see {shown:?} in minute {}, committed is {rows:?}", minute.0)
            })?;
            seen.insert(minute, shown);
        }
        for (minute, told) in &self.told {
            let now = seen.get(minute).unwrap_or(&told.rows);
            let less = told.rows.iter().any(|(key, &clicks)| now.get(key).copied().unwrap_or_default() < clicks);
            ensure(!less && seen.contains_key(minute), Invariant::Conservation, || {
                format!("minute {} was told to have {:?}, now it has {now:?}", minute.0, told.rows)
            })?;
            let is_final = snapshot.progress.state_of(*minute) == MinuteState::Final;
            ensure(!told.is_final || (is_final && *now == told.rows), Invariant::FinalIsFinal, || {
                format!("minute {} was final with {:?}, now it has {now:?}", minute.0, told.rows)
            })?;
        }
        for (minute, rows) in seen {
            let state = snapshot.progress.state_of(minute);
            if state != MinuteState::Open {
                self.told.insert(minute, Told { is_final: state == MinuteState::Final, rows });
            }
        }
        Ok(())
    }

    /// With everything read, a click must be counted exactly once if one of its lines was not late, and every other
    /// line must be a dead letter.
    pub(crate) fn check_end(&self, servers: &Servers) -> Verdict {
        let lossy = servers.lines.iter().any(|line| line.may_be_lost);
        // If logs are copied and truncated several times between two discoveries, bytes read from a copy may also be
        // booked as a gap of the original.
        let gaps = self.inputs.values().filter(|row| row.ledger.gap_bytes > 0);
        let gaps: Vec<_> = gaps.map(|row| (&row.name, &row.log, row.ledger.gap_bytes)).collect();
        ensure(lossy || gaps.is_empty() || servers.copied, Invariant::Conservation, || {
            format!("gaps are booked, and nothing is missing: {gaps:?}")
        })?;
        let mut lines_of: BTreeMap<&Who, usize> = BTreeMap::new();
        let lines = || servers.lines.iter().enumerate().filter(|(_, line)| line.partition == self.partition);
        for (number, line) in lines() {
            let letters = self.letters.get(&number).map_or(0, Vec::len);
            let counted = match &line.content {
                Content::Click(click) => {
                    *lines_of.entry(&click.who).or_default() += 1;
                    self.counted.contains(&click.who)
                }
                Content::Malformed | Content::Invalid => false,
            };
            ensure(counted || letters > 0 || line.may_be_lost, Invariant::Conservation, || {
                let inputs = self.inputs.values().map(|row| format!("{} to {}", row.name, row.position().to));
                let inputs: Vec<String> = inputs.collect();
                format!("line {number} is lost: {:?}, at {}; read are {inputs:?}", line.content, line.at)
            })?;
            ensure(letters <= 1 || servers.copied, Invariant::Conservation, || {
                format!("line {number} has {letters} dead letters")
            })?;
        }
        let foreign = self.counted.iter().find(|who| !lines_of.contains_key(who));
        ensure(foreign.is_none(), Invariant::NoDoubleCount, || {
            format!("{foreign:?} is counted and was never written")
        })?;
        let written = lines().count() as u64;
        let exact = if servers.copied { self.ledger.read >= written } else { self.ledger.read == written };
        ensure(exact || lossy, Invariant::Conservation, || {
            format!("{written} lines were written, {} read", self.ledger.read)
        })
    }
}
