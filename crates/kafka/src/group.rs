//! Membership in a consumer group, which divides the partitions of a topic among processes and notices the dead.
//!
//! The member fetches nothing: it answers each assignment with an empty list, so that librdkafka owns the partitions in the
//! group's eyes and reads none of them. A thread of its own polls, whatever the rest of the process waits for. A revocation
//! is answered when the caller has released the partitions, or after [`RELEASE_MS_MAX`].
//!
//! Membership is a hint. It can be lost without notice, for example while a revocation is open, and then two processes think
//! that they own a partition. The epoch log decides which of them does.

use crate::cluster::{Cluster, Quiet};
use crate::consumer::MonotonicMs;
use adtally_model::{Error, Result};
use adtally_source::GroupEvent;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a revocation waits for the release of its partitions, in milliseconds: less than the shortest useful session
/// timeout, because a member that is dismissed while it waits does not notice.
pub const RELEASE_MS_MAX: i64 = 4_000;

/// Longest time in which the thread does not look at its queue.
const POLL: Duration = Duration::from_millis(50);

/// Time between two commits of offsets, in milliseconds. They are hints for tools that show the lag.
const COMMIT_EVERY_MS: i64 = 5_000;

/// A member of a group.
pub struct Membership {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    events: VecDeque<GroupEvent>,
    /// The partitions of the open revocation that are not released yet, and when it began.
    open: Option<(BTreeSet<u32>, i64)>,
    /// The partitions that the group has assigned.
    owned: BTreeSet<u32>,
    /// Offsets to commit.
    offsets: BTreeMap<u32, u64>,
    /// Why the group cannot be reached at the moment.
    failure: Option<String>,
    /// An error after which this process is not a member any more.
    ended: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    /// Whether the revocation that librdkafka delivered is not answered.
    revoke_is_open: AtomicBool,
    /// Whether the member must be made anew: it answered another question than the group asked.
    superseded: AtomicBool,
    leaving: AtomicBool,
    topic: String,
    clock: MonotonicMs,
}

struct Context {
    shared: Arc<Shared>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
        self.shared.state.lock().failure = Some(reason.to_owned());
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if result.is_ok() {
            self.shared.state.lock().failure = None;
        }
    }

    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<u32> =
            list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        let nothing = TopicPartitionList::new();
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if shared.revoke_is_open.swap(false, Ordering::SeqCst) {
                // The group went on without the answer to its revocation.
                shared.superseded.store(true, Ordering::SeqCst);
            }
            let _ = consumer.incremental_assign(&nothing);
            state.owned.extend(&partitions);
            state.failure = None;
            state.events.push_back(GroupEvent::Assigned(partitions));
            return;
        }
        let is_lost = consumer.assignment_lost();
        state.owned.retain(|partition| !partitions.contains(partition));
        if is_lost || shared.leaving.load(Ordering::SeqCst) {
            if shared.revoke_is_open.swap(false, Ordering::SeqCst) {
                shared.superseded.store(true, Ordering::SeqCst);
            }
            let _ = consumer.incremental_unassign(&nothing);
            state.events.push_back(GroupEvent::Lost(partitions));
        } else {
            shared.revoke_is_open.store(true, Ordering::SeqCst);
            state.open = Some((partitions.iter().copied().collect(), (shared.clock)()));
            state.events.push_back(GroupEvent::Revoked(partitions));
        }
    }
}

impl Membership {
    /// Joins a group that reads a topic.
    ///
    /// # Errors
    /// A user error for wrong options.
    pub fn join(cluster: &Cluster, topic: &str, group: &str, clock: MonotonicMs) -> Result<Membership> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            revoke_is_open: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            topic: topic.to_owned(),
            clock,
        });
        let (cluster, group) = (cluster.clone(), group.to_owned());
        let consumer = member(&cluster, &group, &shared)?;
        let work = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kafka-group".into())
            .spawn(move || work.run(consumer, || member(&cluster, &group, &work)))
            .map_err(|error| Error::external("the thread `kafka-group` cannot be started").because(error))?;
        Ok(Membership { shared, thread: Some(thread) })
    }

    /// The next event, if there is one. Does not wait.
    ///
    /// # Errors
    /// External when this process cannot be a member any more.
    pub fn next_event(&self) -> Result<Option<GroupEvent>> {
        let mut state = self.shared.state.lock();
        match state.events.pop_front() {
            None if state.ended.is_some() => Err(Error::external(state.ended.clone().unwrap_or_default())),
            event => Ok(event),
        }
    }

    /// Says that this process has given up a partition that was revoked.
    pub fn release(&self, partition: u32) {
        if let Some((partitions, _)) = &mut self.shared.state.lock().open {
            partitions.remove(&partition);
        }
    }

    /// Says how far a partition was committed. It is passed on to the group as a hint.
    pub fn note_committed(&self, partition: u32, offset: u64) {
        self.shared.state.lock().offsets.insert(partition, offset);
    }

    /// Why the group cannot be reached, if it cannot.
    pub fn failure(&self) -> Option<String> {
        self.shared.state.lock().failure.clone()
    }
}

impl Drop for Membership {
    /// Leaves the group, so that others take over at once.
    fn drop(&mut self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A member that has subscribed to the topic.
fn member(cluster: &Cluster, group: &str, shared: &Arc<Shared>) -> Result<BaseConsumer<Context>> {
    let context = Context { shared: Arc::clone(shared), quiet: Quiet };
    let consumer: BaseConsumer<Context> = cluster
        .config(&[
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "2000"),
            // This thread always polls.
            ("max.poll.interval.ms", "60000"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
        ])
        .set("group.id", group)
        .create_with_context(context)
        .map_err(Cluster::unusable)?;
    consumer.subscribe(&[&shared.topic]).map_err(|error| {
        Error::external(format!("the topic {} cannot be subscribed to", shared.topic)).because(error)
    })?;
    Ok(consumer)
}

impl Shared {
    fn run(&self, mut consumer: BaseConsumer<Context>, renew: impl Fn() -> Result<BaseConsumer<Context>>) {
        let mut committed_ms = (self.clock)();
        while !self.leaving.load(Ordering::SeqCst) {
            // Records never come: nothing is fetched.
            match consumer.poll(POLL) {
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    tracing::warn!("the member of the group cannot go on and is made anew: {code}");
                    self.superseded.store(true, Ordering::SeqCst);
                }
                Some(Err(error)) => tracing::debug!("the group reports: {error}"),
                Some(Ok(_)) | None => {}
            }
            if self.superseded.swap(false, Ordering::SeqCst) {
                self.lose_all();
                self.end(consumer);
                match renew() {
                    Ok(renewed) => consumer = renewed,
                    Err(error) => {
                        self.state.lock().ended = Some(error.report());
                        return;
                    }
                }
                continue;
            }
            let now_ms = (self.clock)();
            if self.is_released(now_ms) && self.revoke_is_open.swap(false, Ordering::SeqCst) {
                let _ = consumer.incremental_unassign(&TopicPartitionList::new());
            }
            if now_ms - committed_ms >= COMMIT_EVERY_MS {
                committed_ms = now_ms;
                self.commit(&consumer);
            }
        }
        self.commit(&consumer);
        self.end(consumer);
    }

    /// Whether all partitions of the open revocation are released, or it has waited too long.
    fn is_released(&self, now_ms: i64) -> bool {
        let mut state = self.state.lock();
        let is_released =
            state.open.as_ref().is_some_and(|(left, since_ms)| left.is_empty() || now_ms - since_ms >= RELEASE_MS_MAX);
        if is_released
            && let Some((left, _)) = state.open.take()
            && !left.is_empty()
        {
            state.events.push_back(GroupEvent::Lost(left.into_iter().collect()));
        }
        is_released
    }

    fn lose_all(&self) {
        let mut state = self.state.lock();
        let mut lost = std::mem::take(&mut state.owned);
        lost.extend(state.open.take().into_iter().flat_map(|(left, _)| left));
        state.events.push_back(GroupEvent::Lost(lost.into_iter().collect()));
    }

    /// Passes offsets on to the group. Failures do not matter.
    fn commit(&self, consumer: &BaseConsumer<Context>) {
        let offsets = {
            let mut state = self.state.lock();
            let State { offsets, owned, .. } = &mut *state;
            let taken: Vec<(u32, u64)> =
                std::mem::take(offsets).into_iter().filter(|(partition, _)| owned.contains(partition)).collect();
            taken
        };
        if offsets.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let _ = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset.cast_signed()));
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            tracing::debug!("the offsets of the group were not committed: {error}");
        }
    }

    /// Leaves with one member. An open revocation is answered first, because the client would wait for that for ever.
    fn end(&self, consumer: BaseConsumer<Context>) {
        if self.revoke_is_open.swap(false, Ordering::SeqCst) {
            let _ = consumer.incremental_unassign(&TopicPartitionList::new());
        }
        let was_leaving = self.leaving.swap(true, Ordering::SeqCst);
        consumer.unsubscribe();
        drop(consumer);
        self.leaving.store(was_leaving, Ordering::SeqCst);
    }
}
