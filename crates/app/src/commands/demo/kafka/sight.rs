//! What can be seen of the deployment from outside: who has which partition, how far Kafka and the epoch logs go, and what the
//! node answers.

use super::PARTITIONS;
use crate::commands::demo::guide::ask;
use adtally_agent::AGENT;
use adtally_engine::clock::{Clock, SystemClock};
use adtally_kafka::TopicEnds;
use adtally_model::time::parse_rfc3339;
use adtally_model::{Ledger, Progress, Result};
use adtally_store::backing::{Backing, StoreUrl};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// The state of the deployment at a moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sight {
    /// The partitions of each worker; `None` if it does not answer.
    pub(super) owned: Vec<Option<BTreeSet<u32>>>,
    /// The offset after the last record of each partition of the topic.
    pub(super) ends: Vec<u64>,
    /// The offset after the last record that is committed, of each partition.
    pub(super) committed: Vec<u64>,
    /// The committed lines by verdict.
    pub(super) ledger: Ledger,
    /// Lines that the agent knows to be safe in Kafka.
    pub(super) acknowledged: u64,
}

impl Sight {
    /// The partitions that no worker has.
    pub(super) fn unowned(&self) -> BTreeSet<u32> {
        let owned: BTreeSet<u32> = self.owned.iter().flatten().flatten().copied().collect();
        (0..PARTITIONS).filter(|partition| !owned.contains(partition)).collect()
    }

    /// The records of these partitions that are not committed yet.
    pub(super) fn lag<'a>(&self, partitions: impl IntoIterator<Item = &'a u32>) -> u64 {
        let at = |offsets: &[u64], partition: u32| offsets.get(partition as usize).copied().unwrap_or_default();
        let lag = |&partition: &u32| at(&self.ends, partition).saturating_sub(at(&self.committed, partition));
        partitions.into_iter().map(lag).sum()
    }

    /// Whether everything up to these offsets is committed.
    pub(super) fn has_committed(&self, ends: &[u64]) -> bool {
        self.committed.len() >= ends.len() && self.committed.iter().zip(ends).all(|(committed, end)| committed >= end)
    }
}

/// Looks at the deployment.
pub(super) struct Lookout {
    topic: TopicEnds,
    data: StoreUrl,
    agent: StoreUrl,
    runtime: tokio::runtime::Handle,
    /// The last state. What cannot be read at the moment stays as it was.
    sight: Sight,
}

impl Lookout {
    /// Looks at a topic, the data of the workers, and the data directory of the agent.
    pub(super) fn new(
        topic: TopicEnds,
        (data, agent): (StoreUrl, StoreUrl),
        runtime: tokio::runtime::Handle,
    ) -> Lookout {
        Lookout { topic, data, agent, runtime, sight: Sight::default() }
    }

    /// The state now. `workers` are the addresses of the workers that run.
    pub(super) fn look(&mut self, workers: &[Option<SocketAddr>]) -> Sight {
        let sight = &mut self.sight;
        sight.owned = workers.iter().map(|address| address.and_then(partitions_at)).collect();
        if let Ok(ends) = self.topic.ends(PARTITIONS) {
            sight.ends = ends;
        }
        if let Ok(progress) = self.runtime.block_on(committed(&self.data)) {
            let offset = |progress: &Progress| progress.source.map_or(0, |source| source.to);
            sight.committed = progress.iter().map(offset).collect();
            sight.ledger = Ledger::default();
            progress.iter().for_each(|progress| sight.ledger += &progress.ledger);
        }
        if let Ok(lines) = self.runtime.block_on(acknowledged(&self.agent)) {
            sight.acknowledged = lines;
        }
        sight.clone()
    }
}

/// The newest progress of each partition. The topic is the only one of the deployment, so its partitions have their own numbers.
async fn committed(data: &StoreUrl) -> Result<Vec<Progress>> {
    let logs = Backing::for_reader(data)?.logs();
    let mut found = Vec::new();
    for partition in 0..PARTITIONS {
        let newest = logs.log(partition).newest().await?;
        found.push(newest.map_or_else(Progress::default, |epoch| epoch.progress));
    }
    Ok(found)
}

/// The lines in the journal of the agent.
async fn acknowledged(agent: &StoreUrl) -> Result<u64> {
    let newest = Backing::for_reader(agent)?.logs().log(AGENT).newest().await?;
    Ok(newest.map_or(0, |epoch| epoch.progress.ledger.read))
}

/// The partitions of the worker at an address.
fn partitions_at(address: SocketAddr) -> Option<BTreeSet<u32>> {
    partitions_in(&ask(address, "/ledger").ok()?)
}

/// The partitions in an answer of `/ledger`.
fn partitions_in(answer: &str) -> Option<BTreeSet<u32>> {
    let ledger: Value = serde_json::from_str(answer).ok()?;
    let rows = ledger.get("partitions")?.as_array()?;
    rows.iter().map(|row| u32::try_from(row.get("partition")?.as_u64()?).ok()).collect()
}

/// The answer of the node to the question which ad was clicked most in the last closed minute.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Best {
    /// The ad.
    pub(super) ad: String,
    /// Its clicks.
    pub(super) clicks: u64,
    /// When the minute begins, such as `09:24`.
    pub(super) minute: String,
    /// The age of the newest click that the node knows, in milliseconds.
    pub(super) age_ms: i64,
}

/// Asks a node. `None` while no minute is closed, or if it does not answer.
pub(super) fn best(node: SocketAddr) -> Option<Best> {
    best_in(&ask(node, "/ads/top100?minutes=1").ok()?, SystemClock.wall_ms())
}

fn best_in(answer: &str, now_ms: i64) -> Option<Best> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let first = answer.get("ads")?.get(0)?;
    let newest_ms = parse_rfc3339(answer.get("newest_click")?.as_str()?.as_bytes())?;
    Some(Best {
        ad: first.get("ad_id")?.as_str()?.to_owned(),
        clicks: first.get("clicks")?.as_u64()?,
        minute: answer.get("from")?.as_str()?.get(11..16)?.to_owned(),
        age_ms: now_ms - newest_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let rows = r#"{"read":3,"partitions":[{"partition":0,"epoch":1},{"partition":4,"epoch":2}],"inputs":[]}"#;
        assert_eq!(partitions_in(rows), Some(BTreeSet::from([0, 4])));
        assert_eq!(partitions_in(r#"{"partitions":[]}"#), Some(BTreeSet::new()));
        assert_eq!(partitions_in(r#"{"type":"/problems/unavailable"}"#), None);
        assert_eq!(partitions_in(""), None);
        let top = r#"{"from":"2026-11-24T09:24:00Z","newest_click":"2026-11-24T09:25:30Z","ads":[{"rank":1,"ad_id":"7","clicks":9}]}"#;
        let now_ms = parse_rfc3339(b"2026-11-24T09:25:34Z").unwrap();
        let best = Best { ad: "7".to_owned(), clicks: 9, minute: "09:24".to_owned(), age_ms: 4_000 };
        assert_eq!(best_in(top, now_ms), Some(best));
        assert_eq!(best_in(r#"{"from":null,"newest_click":null,"ads":[]}"#, now_ms), None);
    }

    #[test]
    fn lag_is_what_is_not_committed() {
        let owned = vec![Some(BTreeSet::from([0, 2, 4])), None];
        let (ends, committed) = (vec![5, 5, 5, 0, 0, 0], vec![5, 3, 1, 0, 0, 0]);
        let sight = Sight { owned, ends, committed, ..Sight::default() };
        assert_eq!(sight.unowned(), BTreeSet::from([1, 3, 5]));
        assert_eq!((sight.lag(&sight.unowned()), sight.lag(&[0, 1, 2])), (2, 6));
        assert!(sight.has_committed(&[5, 3, 1]) && !sight.has_committed(&[5, 4, 1]));
        // Nothing was seen yet.
        assert!(!Sight::default().has_committed(&[0]));
    }
}
