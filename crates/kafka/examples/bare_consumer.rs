//! A consumer that does nothing but count: the peer of `cargo xtask bench scale-out`, written as users of rdkafka write it.
//!
//! Usage: `bare_consumer BROKERS TOPIC PARTITIONS`. It reads all partitions from their beginning to their present end, and
//! prints the records, the seconds and the rate.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::error::Error;
use std::time::{Duration, Instant};

/// How long a request or a record may take.
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, partitions] = words.as_slice() else {
        return Err("usage: bare_consumer BROKERS TOPIC PARTITIONS".into());
    };
    let partitions: i32 = partitions.parse()?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "bare-consumer")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
        let (first, end) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        expected += end - first;
    }
    let began = now();
    consumer.assign(&assignment)?;
    let (mut records, mut bytes) = (0, 0);
    while records < expected {
        let message = consumer.poll(TIMEOUT).ok_or("no record came for 30 s")??;
        bytes += message.payload_len();
        records += 1;
    }
    let seconds = (now() - began).as_secs_f64();
    println!("{records} records, {bytes} bytes, {seconds:.3} s, {:.0} records/s", records as f64 / seconds);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn now() -> Instant {
    Instant::now()
}
