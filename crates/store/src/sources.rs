//! The topics of a deployment, and the numbers of their partitions.
//!
//! Numbers are unique in a deployment: partition P of a topic has the number `first + P`. A topic is registered before any
//! of its partitions has a log, so that readers know which partitions are still missing. Each topic is one object that is
//! created with put-if-absent and never changes: `sources/<first>.json`.

use crate::epoch_log::EpochLogs;
use adtally_model::{Error, Progress, RECONCILE, Result, TopicPartition};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The folder of the registered topics.
const FOLDER: &str = "sources";

/// A topic of a deployment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, in hexadecimal digits.
    #[serde(with = "hexadecimal")]
    pub id: u128,
    /// The number of its partitions.
    pub partitions: u32,
    /// How its producers choose the partition of an ad.
    pub partitioner: String,
    /// The number of its first partition in the deployment.
    pub first: u32,
}

impl Topic {
    /// The number of a partition in the deployment.
    pub fn number_of(&self, partition: u32) -> u32 {
        self.first + partition
    }

    /// The source of the partition with this number in the deployment; `None` if it is not of this topic.
    pub fn source_of(&self, number: u32) -> Option<TopicPartition> {
        let partition = number.checked_sub(self.first).filter(|&partition| partition < self.partitions)?;
        Some(TopicPartition { topic_id: self.id, partition, partitions: self.partitions })
    }

    /// The numbers of its partitions in the deployment.
    pub fn numbers(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.partitions
    }
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(number: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{number:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        u128::from_str_radix(&String::deserialize(from)?, 16).map_err(D::Error::custom)
    }
}

/// The registered topics of a deployment.
#[derive(Clone)]
pub struct Sources {
    store: Arc<dyn ObjectStore>,
    logs: EpochLogs,
}

impl Sources {
    /// The topics in the folder `sources/` of a store.
    pub fn new(store: Arc<dyn ObjectStore>, logs: EpochLogs) -> Sources {
        Sources { store, logs }
    }

    /// All topics, by the numbers of their partitions.
    ///
    /// # Errors
    /// Corrupt when an object is damaged, external when the store fails.
    pub async fn all(&self) -> Result<Vec<Topic>> {
        let failed = |error| Error::transient(format!("the folder {FOLDER} cannot be read")).because(error);
        let listed: Vec<_> = self.store.list(Some(&Path::from(FOLDER))).try_collect().await.map_err(failed)?;
        let mut topics = Vec::new();
        for object in listed.into_iter().filter(|object| object.location.extension() == Some("json")) {
            let found = self.store.get(&object.location).await.map_err(failed)?;
            let bytes = found.bytes().await.map_err(failed)?;
            let topic: Topic = serde_json::from_slice(&bytes).map_err(|error| {
                Error::corrupt(format!("{} is damaged: restore it from a backup", object.location)).because(error)
            })?;
            topics.push(topic);
        }
        topics.sort_by_key(|topic| topic.first);
        Ok(topics)
    }

    /// Finds a topic, or registers it after all partitions that exist. Also returns the partitions of other sources, which are
    /// all retired.
    ///
    /// # Errors
    /// A user error when another source is not retired, or when the topic was registered with another number of partitions or
    /// another partitioner; otherwise as [`Sources::all`].
    pub async fn register(
        &self,
        name: &str,
        id: u128,
        partitions: u32,
        partitioner: &str,
    ) -> Result<(Topic, Vec<Progress>)> {
        loop {
            let topics = self.all().await?;
            // Of two processes that register topics at once, one sees here that it was second.
            let retired = self.others(&topics, id, name).await?;
            if let Some(known) = topics.iter().find(|topic| topic.id == id) {
                check(known, partitions, partitioner)?;
                return Ok((known.clone(), retired));
            }
            let logs = self.logs.partitions().await?;
            let after = logs.iter().filter(|&&number| number != RECONCILE).map(|&number| number + 1);
            let first = topics.iter().map(|topic| topic.numbers().end).chain(after).max().unwrap_or_default();
            if first.checked_add(partitions).is_none_or(|end| end > RECONCILE) {
                return Err(Error::user(format!(
                    "a deployment has at most {RECONCILE} partitions: {partitions} more are too many"
                )));
            }
            let topic = Topic { name: name.to_owned(), id, partitions, partitioner: partitioner.to_owned(), first };
            let bytes = serde_json::to_vec(&topic)
                .map_err(|error| Error::internal("a topic cannot be written as JSON").because(error))?;
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let path = Path::from(format!("{FOLDER}/{first:05}.json"));
            match self.store.put_opts(&path, Bytes::from(bytes).into(), options).await {
                // Another process may have registered it, or a topic of its own: the next look tells.
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => {
                    return Err(Error::transient(format!("the topic {name} cannot be registered")).because(error));
                }
            }
        }
    }

    /// The partitions of other sources than the topic with this id. All must be retired.
    async fn others(&self, topics: &[Topic], id: u128, name: &str) -> Result<Vec<Progress>> {
        let mut numbers = self.logs.partitions().await?;
        numbers.retain(|&number| number != RECONCILE);
        numbers.extend(topics.iter().flat_map(Topic::numbers));
        numbers.sort_unstable();
        numbers.dedup();
        let mut retired = Vec::new();
        for number in numbers {
            let of = topics.iter().find(|topic| topic.numbers().contains(&number));
            if of.is_some_and(|topic| topic.id == id) {
                continue;
            }
            match self.logs.log(number).newest().await? {
                Some(newest) if newest.progress.is_retired => retired.push(newest.progress),
                _ => {
                    let (what, how) = match of {
                        None => ("log files".to_owned(), String::new()),
                        Some(topic) => (
                            format!("another topic ({}, id {:032x})", topic.name, topic.id),
                            format!(" --topic {}", topic.name),
                        ),
                    };
                    return Err(Error::user(format!(
                        "partition {number} of the data reads {what} and is not retired: copies of its clicks in {name} would be \
                         counted twice. Read it to its end, and retire it with `adtally retire{how}`; or count the topic into \
                         another URL"
                    )));
                }
            }
        }
        Ok(retired)
    }

    /// The numbers of all source partitions of the deployment, retired ones included: those of topics, and those of other
    /// logs.
    ///
    /// # Errors
    /// As [`Sources::all`].
    pub async fn partitions(&self) -> Result<Vec<u32>> {
        let mut numbers = self.logs.partitions().await?;
        numbers.retain(|&number| number != RECONCILE);
        for topic in self.all().await? {
            numbers.extend(topic.numbers());
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }
}

/// Rejects a topic that has changed since it was registered.
fn check(known: &Topic, partitions: u32, partitioner: &str) -> Result<()> {
    let name = &known.name;
    if known.partitions != partitions {
        return Err(Error::user(format!(
            "the topic {name} had {} partitions and now has {partitions}: the copies of a click before and after the change are \
             in different partitions, and would be counted twice. Make a new topic with {partitions} partitions, bring this one \
             into it with `adtally repartition`, and count the new one into another URL",
            known.partitions
        )));
    }
    if known.partitioner != partitioner {
        return Err(Error::user(format!(
            "the topic {name} was first read with kafka.partitioner = \"{}\", and now with \"{partitioner}\": the producers of a \
             topic must not change how they choose partitions. Use a new topic",
            known.partitioner
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch_log::{Beginning, Fingerprints};
    use adtally_model::ErrorKind;
    use object_store::memory::InMemory;

    fn sources() -> Sources {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        Sources::new(Arc::clone(&store), EpochLogs::new(store))
    }

    /// Retires all partitions of a topic, without their lake.
    async fn retire(sources: &Sources, topic: &Topic) {
        for number in topic.numbers() {
            let log = sources.logs.log(number);
            let beginning = Beginning { topic: topic.source_of(number), ..Beginning::default() };
            let (mut writer, state) = log.claim_as(1, 9, Fingerprints { config: 1, key: 2 }, &beginning).await.unwrap();
            writer.retire(&state).await.unwrap();
        }
    }

    #[tokio::test]
    async fn numbers_of_topics_follow_one_another() {
        let sources = sources();
        let (first, others) = sources.register("clicks", 7, 3, "murmur2").await.unwrap();
        assert_eq!((first.numbers(), others), (0..3, Vec::new()));
        let refused = sources.register("more", 8, 2, "crc32").await.unwrap_err();
        assert!(refused.report().contains("adtally retire --topic clicks"), "{}", refused.report());
        assert_eq!(sources.partitions().await.unwrap(), [0, 1, 2], "a topic that is refused leaves nothing");
        retire(&sources, &first).await;
        let (second, retired) = sources.register("more", 8, 2, "crc32").await.unwrap();
        assert_eq!(second.numbers(), 3..5);
        assert_eq!(retired.iter().map(|progress| progress.partition).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(sources.partitions().await.unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(second.source_of(4), Some(TopicPartition { topic_id: 8, partition: 1, partitions: 2 }));
        assert_eq!(second.source_of(2), None);
        for changed in [sources.register("more", 8, 4, "crc32").await, sources.register("more", 8, 2, "murmur2").await]
        {
            assert_eq!(changed.unwrap_err().kind(), ErrorKind::User);
        }
    }

    #[tokio::test]
    async fn of_processes_with_different_topics_that_start_at_once_one_wins() {
        let sources = sources();
        let topics = (0..8_u128).flat_map(|id| [id, id]).map(|id| {
            let sources = sources.clone();
            async move { sources.register(&format!("topic {id}"), id, 3, "murmur2").await }
        });
        let registered = futures::future::join_all(topics).await;
        for pair in registered.chunks(2) {
            assert_eq!(pair[0].as_ref().ok(), pair[1].as_ref().ok());
        }
        assert_eq!(registered.iter().flatten().count(), 2);
        assert_eq!(sources.partitions().await.unwrap(), [0, 1, 2]);
    }
}
