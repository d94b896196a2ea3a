//! Calls of librdkafka that its Rust binding lacks: records of a partition as events, with the offset of the end; names of
//! headers and texts beside offsets, which may be any bytes (the binding panics if they are not UTF-8); and the id of a topic.
//!
//! All pointers come from librdkafka and stay inside this module. An event owns its record, and the record its value and
//! headers, so they are passed to a closure and not returned.

#![allow(unsafe_code)]

use adtally_source::RawRecord;
use adtally_source::kafka::record::{CSV, GAP, INPUT, SEQUENCE, WATERMARK};
use rdkafka::TopicPartitionList;
use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::sync::Arc;

/// What a partition's queue has.
pub(crate) enum Event {
    /// Nothing at the moment.
    Nothing,
    /// A record was taken.
    Record,
    /// The end of the partition is at this offset.
    End(i64),
    /// An error of the partition.
    Failed(RDKafkaErrorCode, String),
}

/// The queue of one partition of a consumer, apart from the queues of its other partitions.
pub(crate) struct PartitionQueue<C: ConsumerContext> {
    queue: *mut rd::rd_kafka_queue_t,
    /// The consumer outlives its queues.
    _consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: a queue of librdkafka may be used from any thread, and only this value uses the pointer.
unsafe impl<C: ConsumerContext> Send for PartitionQueue<C> {}

impl<C: ConsumerContext> PartitionQueue<C> {
    /// Separates the queue of a partition. Call it before the partition is assigned.
    pub(crate) fn split(consumer: &Arc<BaseConsumer<C>>, topic: &str, partition: i32) -> Option<PartitionQueue<C>> {
        let topic = CString::new(topic).ok()?;
        // SAFETY: the client is alive, and the name ends with a NUL byte.
        let queue =
            unsafe { rd::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition) };
        if queue.is_null() {
            return None;
        }
        // SAFETY: the queue is alive. Without a target, it is not forwarded to the consumer's queue.
        unsafe { rd::rd_kafka_queue_forward(queue, ptr::null_mut()) };
        Some(PartitionQueue { queue, _consumer: Arc::clone(consumer) })
    }

    /// Takes the next event without waiting. A record is passed to `take`.
    pub(crate) fn poll(&self, take: &mut dyn FnMut(RawRecord<'_>)) -> Event {
        loop {
            // SAFETY: the queue is alive.
            let event = unsafe { rd::rd_kafka_queue_poll(self.queue, 0) };
            if event.is_null() {
                return Event::Nothing;
            }
            let event = OwnedEvent(event);
            // SAFETY: the event is alive until it is dropped at the end of this iteration.
            match unsafe { rd::rd_kafka_event_type(event.0) } {
                rd::RD_KAFKA_EVENT_FETCH => {
                    // SAFETY: the event has records; they live as long as it does.
                    let record = unsafe { rd::rd_kafka_event_message_next(event.0) };
                    if !record.is_null() {
                        // SAFETY: the record is alive until the event is dropped, which is after the closure returns.
                        unsafe { pass(record, take) };
                        return Event::Record;
                    }
                }
                rd::RD_KAFKA_EVENT_ERROR => return event.error(),
                _ => {}
            }
        }
    }
}

impl<C: ConsumerContext> Drop for PartitionQueue<C> {
    fn drop(&mut self) {
        // SAFETY: this reference to the queue is given back once.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) };
    }
}

/// An event that is given back when dropped.
struct OwnedEvent(*mut rd::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: the event is given back once.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

impl OwnedEvent {
    /// The error of an event of errors.
    fn error(&self) -> Event {
        // SAFETY: the event is alive, and its text ends with a NUL byte.
        let (code, reason) = unsafe {
            let code: RDKafkaErrorCode = rd::rd_kafka_event_error(self.0).into();
            let text = rd::rd_kafka_event_error_string(self.0);
            (code, if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() })
        };
        if code != RDKafkaErrorCode::PartitionEOF {
            return Event::Failed(code, reason);
        }
        // SAFETY: the event is alive; the partition that it returns is given back.
        let offset = unsafe {
            let partition = rd::rd_kafka_event_topic_partition(self.0);
            if partition.is_null() {
                -1
            } else {
                let offset = (*partition).offset;
                rd::rd_kafka_topic_partition_destroy(partition);
                offset
            }
        };
        Event::End(offset)
    }
}

/// Passes a record to `take`.
///
/// # Safety
/// The record must be alive until this returns.
unsafe fn pass(record: *const rd::rd_kafka_message_t, take: &mut dyn FnMut(RawRecord<'_>)) {
    // SAFETY: the caller keeps the record alive.
    let message = unsafe { &*record };
    let bytes = |pointer: *const u8, len: usize| -> Option<&[u8]> {
        // SAFETY: a value that is not null has this many bytes, which live as long as the record.
        (!pointer.is_null()).then(|| unsafe { std::slice::from_raw_parts(pointer, len) })
    };
    let mut raw = RawRecord {
        offset: message.offset.max(0).cast_unsigned(),
        value: bytes(message.payload.cast(), message.len).unwrap_or_default(),
        ..RawRecord::default()
    };
    let mut headers = ptr::null_mut();
    // SAFETY: the record is alive, and owns the headers that this returns.
    if unsafe { rd::rd_kafka_message_headers(record, &mut headers) } == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        let (mut at, mut name, mut value, mut len) = (0, ptr::null::<c_char>(), ptr::null(), 0);
        // SAFETY: the headers are alive; the call ends the loop when there is no header with this number.
        while unsafe { rd::rd_kafka_header_get_all(headers, at, &mut name, &mut value, &mut len) }
            == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            at += 1;
            // SAFETY: a header's name ends with a NUL byte.
            let name = unsafe { CStr::from_ptr(name) }.to_bytes();
            let value = bytes(value.cast(), len).or(Some(&[]));
            match name {
                _ if name == INPUT.as_bytes() => raw.input = value,
                _ if name == WATERMARK.as_bytes() => raw.watermark = value,
                _ if name == SEQUENCE.as_bytes() => raw.sequence = value,
                _ if name == CSV.as_bytes() => raw.csv = value,
                _ if name == GAP.as_bytes() => raw.gap = value,
                _ => {}
            }
        }
    }
    take(raw);
}

/// What a broker says about an offset that a group has committed.
pub(crate) struct RawOffset {
    pub(crate) partition: i32,
    /// Negative if there is none.
    pub(crate) offset: i64,
    /// The text beside it.
    pub(crate) note: Vec<u8>,
    /// Why it is not known.
    pub(crate) error: Option<RDKafkaErrorCode>,
}

/// The offsets in a list.
pub(crate) fn offsets_of(list: &TopicPartitionList) -> Vec<RawOffset> {
    // SAFETY: the list is alive until this function returns, and has as many elements as it says.
    let elements: &[rd::rd_kafka_topic_partition_t] = unsafe {
        let list = &*list.ptr();
        match usize::try_from(list.cnt) {
            Ok(count) if !list.elems.is_null() => std::slice::from_raw_parts(list.elems, count),
            _ => &[],
        }
    };
    let own = |element: &rd::rd_kafka_topic_partition_t| {
        let note = if element.metadata.is_null() {
            Vec::new()
        } else {
            // SAFETY: a text that is not null has this many bytes, which live as long as its element.
            unsafe { std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }.to_vec()
        };
        let error = match element.err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            code => Some(code.into()),
        };
        RawOffset { partition: element.partition, offset: element.offset, note, error }
    };
    elements.iter().map(own).collect()
}

/// The id and the number of partitions of a topic.
///
/// # Errors
/// The code of the failure; `None` if there was no answer in time.
pub(crate) fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout_ms: i32,
) -> Result<([u8; 16], usize), Option<RDKafkaErrorCode>> {
    let name = CString::new(topic).map_err(|_| Some(RDKafkaErrorCode::InvalidTopic))?;
    // SAFETY: the client is alive. Each object that is made here is given back here; the names and options are copied by
    // the call. The results belong to the event, and are read before it is given back.
    unsafe {
        let own = client.native_ptr();
        let queue = rd::rd_kafka_queue_new(own);
        let mut names = [name.as_ptr()];
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = rd::rd_kafka_AdminOptions_new(own, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let mut reason: [c_char; 256] = [0; 256];
        rd::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason.as_mut_ptr(), reason.len());
        rd::rd_kafka_DescribeTopics(own, topics, options, queue);
        rd::rd_kafka_TopicCollection_destroy(topics);
        rd::rd_kafka_AdminOptions_destroy(options);
        let event = rd::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1_000));
        let described = if event.is_null() { Err(None) } else { read_description(&OwnedEvent(event)) };
        rd::rd_kafka_queue_destroy(queue);
        described
    }
}

/// Reads the result of a description.
///
/// # Safety
/// The event must be that of a description.
unsafe fn read_description(event: &OwnedEvent) -> Result<([u8; 16], usize), Option<RDKafkaErrorCode>> {
    // SAFETY: the event is alive, and all results belong to it.
    unsafe {
        let failed = |code: RDKafkaRespErr| match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            code => Err(Some(code.into())),
        };
        failed(rd::rd_kafka_event_error(event.0))?;
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(None);
        }
        let mut count = 0;
        let described = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count != 1 {
            return Err(Some(RDKafkaErrorCode::UnknownTopic));
        }
        let topic = *described;
        failed(rd::rd_kafka_error_code(rd::rd_kafka_TopicDescription_error(topic)))?;
        let uuid = rd::rd_kafka_TopicDescription_topic_id(topic);
        let halves = [rd::rd_kafka_Uuid_most_significant_bits(uuid), rd::rd_kafka_Uuid_least_significant_bits(uuid)];
        let mut id = [0; 16];
        id[..8].copy_from_slice(&halves[0].to_be_bytes());
        id[8..].copy_from_slice(&halves[1].to_be_bytes());
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        Ok((id, partitions))
    }
}
