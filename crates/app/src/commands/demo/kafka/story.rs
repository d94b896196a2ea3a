//! What happens in the demo: a worker is killed, the other one takes its partitions over and catches up, and the first is
//! started again. Decides from what is seen; does nothing itself.

use super::sight::Sight;
use super::{SURVIVOR, VICTIM};
use std::collections::BTreeSet;

/// When the worker is killed, in milliseconds after the beginning. A short demo kills it after a third of its time.
const KILL_MS: i64 = 30_000;

/// When it is started again, in milliseconds after it was killed: long after the others have noticed.
const RESTART_AFTER_MS: i64 = 45_000;

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Kill the worker.
    Kill,
    /// Start it again.
    Restart,
    /// Tell the user.
    Say(String),
}

/// How far the story is. Times are in milliseconds after the beginning.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Chapter {
    /// Both workers count.
    Calm,
    /// The worker was killed, and these partitions have no owner.
    Killed { at_ms: i64, orphans: BTreeSet<u32> },
    /// The other one has them, and catches up with what was in the topic then.
    TakenOver { killed_ms: i64, ends: Vec<u64> },
    /// It has caught up.
    CaughtUp { killed_ms: i64 },
    /// The worker was started again.
    Restarted { at_ms: i64 },
    /// Both count again.
    Over,
}

/// The story of a demo.
#[derive(Debug)]
pub(super) struct Story {
    kill_ms: i64,
    chapter: Chapter,
}

impl Story {
    /// The story of a demo that stops after so many seconds; 0 means that it does not stop.
    pub(super) fn of(seconds: u64) -> Story {
        let third_ms = i64::try_from(seconds.saturating_mul(1_000) / 3).unwrap_or(i64::MAX);
        let kill_ms = if seconds == 0 { KILL_MS } else { KILL_MS.min(third_ms) };
        Story { kill_ms, chapter: Chapter::Calm }
    }

    /// What to do `now_ms` milliseconds after the beginning. Without `may_act`, as at the end, it only tells what happens.
    pub(super) fn turn(&mut self, now_ms: i64, sight: &Sight, may_act: bool) -> Vec<Step> {
        let nobody = BTreeSet::new();
        let owned = |worker: usize| sight.owned.get(worker).and_then(Option::as_ref).unwrap_or(&nobody);
        let (mine, theirs) = (owned(VICTIM), owned(SURVIVOR));
        let mut steps = Vec::new();
        // Nobody would see the kill of a worker that has nothing.
        let is_shared = !mine.is_empty() && !theirs.is_empty() && sight.unowned().is_empty();
        let next = match &self.chapter {
            Chapter::Calm if may_act && now_ms >= self.kill_ms && is_shared => {
                steps.push(Step::Kill);
                steps.push(Step::Say(format!(
                    "{} was killed (SIGKILL), and its partitions {} stand still; Kafka notices that within 10 s",
                    name(VICTIM),
                    list(mine)
                )));
                Chapter::Killed { at_ms: now_ms, orphans: mine.clone() }
            }
            Chapter::Killed { at_ms, orphans } if orphans.is_subset(theirs) => {
                steps.push(Step::Say(format!(
                    "{} has taken over the partitions {}, {} after the kill",
                    name(SURVIVOR),
                    list(orphans),
                    seconds(now_ms - at_ms)
                )));
                Chapter::TakenOver { killed_ms: *at_ms, ends: sight.ends.clone() }
            }
            Chapter::TakenOver { killed_ms, ends } if sight.has_committed(ends) => {
                steps.push(Step::Say(format!(
                    "{} has caught up: what was in the topic at the take-over is counted, {} after the kill",
                    name(SURVIVOR),
                    seconds(now_ms - killed_ms)
                )));
                Chapter::CaughtUp { killed_ms: *killed_ms }
            }
            Chapter::TakenOver { killed_ms, .. } | Chapter::CaughtUp { killed_ms }
                if may_act && now_ms - killed_ms >= RESTART_AFTER_MS =>
            {
                steps.push(Step::Restart);
                steps.push(Step::Say(format!("{} is started again", name(VICTIM))));
                Chapter::Restarted { at_ms: now_ms }
            }
            Chapter::Restarted { at_ms } if is_shared => {
                let after = seconds(now_ms - at_ms);
                steps.push(Step::Say(format!("{} has the partitions {}, {after} later", name(VICTIM), list(mine))));
                Chapter::Over
            }
            _ => return steps,
        };
        self.chapter = next;
        steps
    }
}

/// What a worker is called.
pub(super) fn name(worker: usize) -> String {
    format!("worker {}", worker + 1)
}

/// `0, 2, 4`.
pub(super) fn list(partitions: &BTreeSet<u32>) -> String {
    partitions.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// `10.4 s`.
pub(super) fn seconds(ms: i64) -> String {
    format!("{:.1} s", ms as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::super::PARTITIONS;
    use super::*;

    /// The survivor has the first partitions, and the victim the others; `None` if the victim does not answer.
    fn sight(first: u32, victim: Option<()>, committed: u64) -> Sight {
        let owned = vec![Some((0..first).collect()), victim.map(|()| (first..PARTITIONS).collect())];
        let offsets = |offset| vec![offset; PARTITIONS as usize];
        Sight { owned, ends: offsets(100), committed: offsets(committed), ..Sight::default() }
    }

    /// What is said, with the other steps in capitals.
    fn told(steps: Vec<Step>) -> String {
        let word = |step| match step {
            Step::Kill => "KILL".to_owned(),
            Step::Restart => "RESTART".to_owned(),
            Step::Say(text) => text,
        };
        steps.into_iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_worker_is_killed_and_comes_back() {
        let mut story = Story::of(0);
        let mut check = |now_ms: i64, sight: Sight, expected: &str| {
            let told = told(story.turn(now_ms, &sight, true));
            assert!(told.contains(expected) && told.is_empty() == expected.is_empty(), "{now_ms}: {told}");
        };
        check(29_000, sight(3, Some(()), 100), "");
        // The second worker has nothing yet.
        check(30_000, sight(PARTITIONS, Some(()), 100), "");
        check(31_000, sight(3, Some(()), 100), "KILL worker 2 was killed (SIGKILL), and its partitions 3, 4, 5 stand");
        check(35_000, sight(3, None, 50), "");
        check(41_400, sight(PARTITIONS, None, 50), "worker 1 has taken over the partitions 3, 4, 5, 10.4 s after");
        check(42_000, sight(PARTITIONS, None, 99), "");
        check(43_000, sight(PARTITIONS, None, 100), "worker 1 has caught up");
        check(75_000, sight(PARTITIONS, None, 100), "");
        check(76_000, sight(PARTITIONS, None, 100), "RESTART worker 2 is started again");
        check(80_000, sight(PARTITIONS, Some(()), 100), "");
        check(82_500, sight(3, Some(()), 100), "worker 2 has the partitions 3, 4, 5, 6.5 s later");
        check(900_000, sight(3, Some(()), 100), "");
    }

    #[test]
    fn a_worker_that_is_slow_does_not_delay_the_restart() {
        let mut story = Story::of(0);
        story.turn(30_000, &sight(3, Some(()), 0), true);
        story.turn(40_000, &sight(PARTITIONS, None, 0), true);
        assert!(told(story.turn(75_000, &sight(PARTITIONS, None, 0), true)).starts_with("RESTART"));
    }

    #[test]
    fn a_short_demo_kills_early_and_nothing_is_done_at_the_end() {
        let mut story = Story::of(40);
        assert_eq!(story.kill_ms, 13_333);
        assert_eq!(Story::of(u64::MAX).kill_ms, KILL_MS);
        assert_eq!(told(story.turn(20_000, &sight(3, Some(()), 0), false)), "");
        assert!(told(story.turn(20_000, &sight(3, Some(()), 0), true)).starts_with("KILL"));
        // What was begun is told to its end.
        assert!(told(story.turn(31_000, &sight(PARTITIONS, None, 0), false)).contains("taken over"));
        assert!(told(story.turn(32_000, &sight(PARTITIONS, None, 100), false)).contains("caught up"));
        assert_eq!(told(story.turn(99_000, &sight(PARTITIONS, None, 100), false)), "");
    }
}
