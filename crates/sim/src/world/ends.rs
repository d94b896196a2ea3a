//! How processes end, what comes back of them, and the end of a world.

use super::*;

impl World {
    /// Nothing happens for a day and more, now and then.
    pub(super) fn rest(&mut self) {
        if self.random.chance(self.scenario.nights) {
            let ms = self.random.between(25, 40) * 3_600_000;
            self.ground.machine.note("nothing happens for", &ms);
            self.ground.machine.advance(ms);
            self.servers.rest(ms);
            self.is_rested = true;
        }
    }

    /// The process is stopped in good order.
    pub(super) fn stop(&mut self) -> Verdict {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        self.ground.machine.note("stops", &"");
        match call(|| process.stop()) {
            Ended::Well(()) => {
                self.process = Some(process);
                self.absorb()?;
                self.process = None;
                self.read.clear();
                self.rest();
                self.judge.check_lake(&self.ground.tables)
            }
            Ended::Died => {
                self.die();
                Ok(())
            }
            Ended::Failed(error) => Err(format!("the owner cannot stop: {}", error.report())),
        }
    }

    /// A bounded run has read everything: it commits and projects what it has, and ends.
    pub(super) fn finish(&mut self, mut process: Process) -> Verdict {
        self.ground.machine.note("has read everything but", &process.unread().len());
        match call(|| process.finish()) {
            Ended::Well(()) => {
                self.process = Some(process);
                self.absorb()?;
                let Some(process) = self.process.take() else { return Ok(()) };
                self.read.clear();
                self.outcome.bounded += 1;
                self.judge.check_bounded(&process, &self.servers)?;
                self.rest();
                self.check_files()
            }
            Ended::Died => {
                self.read = process.positions();
                self.die();
                Ok(())
            }
            Ended::Failed(error) => Err(format!("a bounded run cannot end: {}", error.report())),
        }
    }

    /// A process died: with it, perhaps, the machine's power, and all that was suspended on it.
    pub(super) fn die(&mut self) {
        self.process = None;
        if self.random.chance(self.scenario.power_losses) {
            self.outcome.power_losses += 1;
            self.ground.machine.note("power is lost", &"");
            self.ground.disk.lose_power(&mut self.random);
            self.zombies.clear();
        }
        if self.random.chance(200) {
            let ms = self.random.between(0, 300_000);
            self.ground.machine.advance(ms);
        }
        self.rest();
    }

    /// A process that another has succeeded goes on: whatever it does, it must write nothing.
    pub(super) fn resume_zombie(&mut self) -> Verdict {
        let at = self.random.below(self.zombies.len() as u64) as usize;
        let mut zombie = self.zombies.swap_remove(at);
        // What its successor wrote last is known.
        self.absorb()?;
        let Some((claim, writer)) = zombie.taken.get(&PARTITION).map(|taken| (taken.claim, taken.writer)) else {
            return Ok(());
        };
        self.ground.machine.note("resumed", &claim);
        if self.process.is_none() && self.judge.writer() == Some(writer) {
            // Its successor died before it had claimed.
            self.process = Some(zombie);
            return Ok(());
        }
        self.outcome.zombies += 1;
        let turns = self.random.below(20);
        let ended = call(|| {
            for _ in 0..turns {
                if zombie.turn()? == Turn::Finished {
                    break;
                }
                zombie.project()?;
            }
            // One more epoch, in any case.
            zombie.stop()
        });
        let head = self.judge.head();
        let disk = self.ground.disk.clone();
        let writers = self.judge.absorb(&disk.disk.lock(), &self.ground.tables, &self.scenario, &self.servers)?;
        if !writers.is_empty() {
            return Err(format!("{}: a zombie wrote epoch {}", Invariant::LinearChain, head + 1));
        }
        match ended {
            Ended::Well(()) => Ok(()),
            Ended::Failed(error) if error.kind() == ErrorKind::Fenced => self.judge.check_lake(&self.ground.tables),
            Ended::Failed(error) => Err(format!("a zombie stops otherwise than fenced: {}", error.report())),
            Ended::Died => Ok(()),
        }
    }

    /// Everything is written and nothing goes wrong any more: a process must come to have read it all.
    pub(super) fn settle(&mut self) -> Verdict {
        self.ground.machine.note("settles", &"");
        self.ground.machine.set_luck(Luck::default());
        self.ground.machine.set_skew(0);
        self.ground.disk.catch_up();
        self.zombies.clear();
        // A bounded run that is under way does not read what came since.
        self.process = self.process.take().filter(|process| process.ending == Ending::Never);
        while self.process.is_none() {
            self.start(Ending::Never)?;
        }
        // Inputs far apart wait for one another, each time until another is idle.
        let quiet_ms = SETTLE_MS + 2 * self.scenario.settings.time.idle_timeout_ms;
        let (mut read, mut since_ms) = (self.judge.read(), self.ground.machine.true_ms());
        while self.ground.machine.true_ms() - since_ms < quiet_ms {
            let Some(process) = &mut self.process else { return Err("nobody settles".to_owned()) };
            let turned = process.turn();
            let committed = process.commit();
            let turn = turned.and_then(|turn| committed.map(|_| turn));
            let turn = turn.map_err(|error| format!("the last process stops: {}", error.report()))?;
            self.absorb()?;
            if self.judge.read() > read {
                (read, since_ms) = (self.judge.read(), self.ground.machine.true_ms());
            }
            self.ground.machine.advance(if turn == Turn::Worked { 30 } else { 1_000 });
        }
        if let Some(process) = &mut self.process {
            process.stop().map_err(|error| format!("the last process cannot stop: {}", error.report()))?;
        }
        self.absorb()?;
        self.check_end()
    }

    pub(super) fn check_end(&self) -> Verdict {
        let held = self.ground.tables.held_by_all(PARTITION);
        if held != self.judge.head() {
            let what = format!("the lake holds epoch {held}, the log ends at {}", self.judge.head());
            return Err(format!("{}: {what}", Invariant::LakeEqualsLog));
        }
        self.judge.check_lake(&self.ground.tables)?;
        self.judge.check_kept(&self.ground.disk.disk.lock())?;
        self.judge.check_end(&self.servers)
    }
}
