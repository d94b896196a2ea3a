//! The end of processes, the return of suspended ones, and the end of a world.

use super::*;
use crate::machine::Outage;

impl World {
    /// Sometimes lets more than a day pass without events.
    pub(super) fn rest(&mut self) {
        if self.random.chance(self.scenario.nights) {
            let ms = self.random.between(25, 40) * 3_600_000;
            self.ground.machine.note("nothing happens for", &ms);
            self.ground.machine.advance(ms);
            self.servers.rest(ms);
            self.is_rested = true;
        }
    }

    /// Asks the process to stop, now or soon.
    pub(super) fn ask_to_stop(&mut self) {
        if let Some(process) = self.process.as_ref().filter(|process| !process.is_to_stop()) {
            self.outcome.stops += 1;
            ask_to_stop(process, &self.scenario, &self.ground.machine, &mut self.random);
        }
    }

    /// Checks a finished process.
    pub(super) fn end(&mut self, process: Process) -> Verdict {
        let gave_up = process.gave_up();
        self.ground.machine.note("is over; gave up:", &gave_up);
        self.process = Some(process);
        self.absorb()?;
        // If the process was succeeded, it is checked as such.
        let Some(mut process) = self.process.take() else { return Ok(()) };
        self.outcome.given_up += u64::from(gave_up);
        self.read.clear();
        let lines = process.lines.get(&PARTITION).copied().unwrap_or_default();
        match process.summary() {
            Ok(summary) => {
                self.judge.check_stopped(lines, gave_up, &self.ground.tables)?;
                if !summary.interrupted {
                    self.outcome.bounded += 1;
                    let readable = self.servers.written_before(process.began_ms);
                    self.judge.check_bounded(&process, &summary.unread, &self.servers, &readable)?;
                }
            }
            Err(error) if gave_up && error.is_retryable() => {}
            Err(error) => return Err(format!("the owner stops: {}", error.report())),
        }
        self.rest();
        self.check_files()
    }

    /// A process dies. Perhaps the machine loses power, which ends all suspended processes.
    pub(super) fn die(&mut self) {
        self.process = None;
        self.reconciler = None;
        if self.random.chance(self.scenario.power_losses) {
            self.outcome.power_losses += 1;
            self.ground.machine.note("power is lost", &"");
            self.ground.disk.lose_power(&mut self.random);
            self.zombies.clear();
            self.stale = None;
        }
        if self.random.chance(200) {
            let ms = self.random.between(0, 300_000);
            self.ground.machine.advance(ms);
        }
        self.rest();
    }

    /// Resumes a process that another has succeeded. It must not write anything.
    pub(super) fn resume_zombie(&mut self) -> Verdict {
        let at = self.random.below(self.zombies.len() as u64) as usize;
        let mut zombie = self.zombies.swap_remove(at);
        // Notes the successor's last records.
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
                zombie.turn();
                zombie.project();
            }
            // It submits one more epoch in any case.
            zombie.work_until_stopped(&mut self.random)?;
            zombie.summary().map(drop)
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
            // It was suspended for longer than it may take to stop.
            Ended::Failed(error) if zombie.gave_up() && error.is_retryable() => Ok(()),
            Ended::Failed(error) => Err(format!("a zombie stops otherwise than fenced: {}", error.report())),
            Ended::Died => Ok(()),
        }
    }

    /// With everything written and no more faults, a process must read everything.
    pub(super) fn settle(&mut self) -> Verdict {
        self.ground.machine.note("settles", &"");
        self.ground.machine.set_luck(Luck::default());
        self.ground.machine.set_skew(0);
        self.ground.disk.catch_up();
        self.zombies.clear();
        // A bounded run in progress does not read newer lines, and a stopping run reads none.
        self.process = self.process.take().filter(|process| process.ending == Ending::Never && !process.is_to_stop());
        while self.process.is_none() {
            self.start(Ending::Never)?;
        }
        // Inputs far apart wait for one another, each time until another one is idle.
        let quiet_ms = SETTLE_MS + 2 * self.scenario.settings.time.idle_timeout_ms;
        let (mut read, mut since_ms) = (self.judge.read(), self.ground.machine.true_ms());
        while self.ground.machine.true_ms() - since_ms < quiet_ms {
            self.with_process(|process, _| {
                process.turn();
                process.commit();
                Ok(false)
            })?;
            if self.judge.read() > read {
                (read, since_ms) = (self.judge.read(), self.ground.machine.true_ms());
            }
            self.ground.machine.advance(500);
        }
        self.with_process(|process, random| process.work_until_stopped(random).map(|()| true))?;
        self.check_end()?;
        self.reconcile_to_the_end()
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

/// Asks a process to stop, now or soon, perhaps during an outage that lasts longer than it may take to stop.
pub(crate) fn ask_to_stop(process: &Process, scenario: &Scenario, machine: &Machine, random: &mut Random) {
    let in_ms = random.pick(&[0, 0, 1_000, 4_000]);
    machine.note("is asked to stop in", &in_ms);
    process.ask_to_stop_at(machine.true_ms() + in_ms);
    if random.chance(scenario.outages) {
        let outage = random.pick(&[Outage::Fails, Outage::Fails, Outage::LosesReplies]);
        machine.break_down(outage, random.pick(&[3_000, 7_000, 15_000, 30_000]));
    }
}
