//! The state of a partition according to the lake, from which a new epoch log starts.

use adtally_model::fold::FoldedMinute;
use adtally_model::identity::IdentityFields;
use adtally_model::{
    Country, EpochNumber, Error, Frontiers, Identity, IdentityKey, Ledger, Minute, MinuteCounts, PartitionState,
    Progress, Result, Watermark, ip,
};
use adtally_store::epoch_log::rebuilt_end;
use adtally_store::lake::{Lake, RollUp};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// Lines that must agree before a clock is believed, as the pipeline's `GUARD_LINES`, which must not be imported here.
const GUARD_LINES: usize = 16;

/// The parameters of the new log.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt<'a> {
    /// The identity key.
    pub key: &'a IdentityKey,
    /// How far an input's watermark is behind its largest event time, in milliseconds.
    pub out_of_orderness_ms: i64,
    /// How long after its end a minute still accepts clicks, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// How long after its end the identities of a minute are kept, in milliseconds.
    pub dedup_horizon_ms: i64,
    /// Fingerprint of the current settings.
    pub config_fingerprint: u64,
    /// The id of the new log.
    pub log_id: u128,
    /// The current time in milliseconds.
    pub clock_ms: i64,
}

/// Converts the lake's rows of a partition up to epoch `last` to the state at the end of a new log. Its numbers are
/// higher than those of the lake and of the old log, which ended with `newest`.
///
/// No inputs are known, so all existing ones are read again. Then lines behind the final frontier are late, and those
/// in live minutes are duplicates. Lines that had been read before are summed in the row of removed inputs.
///
/// # Errors
/// External when the lake cannot be read, corrupt when it contradicts itself.
pub async fn rebuild(
    lake: &Lake,
    partition: u32,
    under: Rebuilt<'_>,
    (last, newest): (EpochNumber, EpochNumber),
) -> Result<PartitionState> {
    let (_, ledger, _) = lake.ledger(partition).await?.unwrap_or((0, Ledger::default(), BTreeMap::new()));
    let newest_click_ms =
        one_time(lake, &format!("SELECT max(click_timestamp) FROM clicks WHERE partition = {partition}")).await?;
    // As for an input's clock: it takes more than fifteen clicks to move it.
    let guarded = format!(
        "SELECT min(t) FROM (SELECT click_timestamp AS t FROM clicks WHERE partition = {partition} \
         ORDER BY click_timestamp DESC LIMIT {GUARD_LINES})"
    );
    let largest_guarded_ms = one_time(lake, &guarded).await?;
    let mut frontiers = Frontiers::default();
    if let Some(largest) = largest_guarded_ms {
        let watermark = largest - under.out_of_orderness_ms;
        // Rolled-up minutes were final.
        let rolled = lake.rolled_up(RollUp::Hour, partition).await?.map_or(i64::MIN, Minute::start_ms);
        let final_ms = (watermark - under.allowed_lateness_ms).max(rolled);
        frontiers.watermark = Watermark::at(watermark);
        frontiers.closed = Watermark::at(watermark.max(final_ms));
        frontiers.final_ = Watermark::at(final_ms);
        frontiers.expired = Watermark::at(final_ms - (under.dedup_horizon_ms - under.allowed_lateness_ms));
    }
    Ok(PartitionState {
        progress: Progress {
            log_id: under.log_id.max(1),
            partition,
            number: rebuilt_end(last.max(newest)),
            clock_ms: under.clock_ms,
            frontiers,
            newest_click_ms,
            largest_guarded_ms,
            next_input: 1,
            gone: ledger,
            ledger,
            ..Progress::default()
        },
        live: live_minutes(lake, partition, under.key, &frontiers).await?,
        config_fingerprint: under.config_fingerprint,
        key_fingerprint: under.key.fingerprint(),
        ..PartitionState::default()
    })
}

/// The time that a query returns, in milliseconds; `None` if null.
async fn one_time(lake: &Lake, query: &str) -> Result<Option<i64>> {
    let batches: Vec<RecordBatch> = lake.sql(query).await?.batches.try_collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    let times = longs(batch, 0)?;
    Ok(times.is_valid(0).then(|| times.as_primitive::<Int64Type>().value(0).div_euclid(1_000)))
}

/// The clicks of one minute.
#[derive(Default)]
struct LiveClicks {
    identities: Vec<Identity>,
    rows: BTreeMap<(u64, Country), i64>,
}

/// The clicks of the minutes whose identities are kept.
async fn live_minutes(
    lake: &Lake,
    partition: u32,
    key: &IdentityKey,
    frontiers: &Frontiers,
) -> Result<BTreeMap<Minute, FoldedMinute>> {
    let mut live: BTreeMap<Minute, LiveClicks> = BTreeMap::new();
    let from_us = frontiers.expired.get().unwrap_or_default().saturating_mul(1_000) - 60_000_000;
    let query = format!(
        "SELECT click_timestamp, ad_id, user_id, ip, country, click_id FROM clicks \
         WHERE partition = {partition} AND click_timestamp >= to_timestamp_micros({from_us})"
    );
    let mut batches = lake.sql(&query).await?.batches;
    while let Some(batch) = batches.try_next().await? {
        let (times, ads) = (longs(&batch, 0)?, longs(&batch, 1)?);
        let (times, ads) = (times.as_primitive::<Int64Type>(), ads.as_primitive::<Int64Type>());
        let texts = [texts(&batch, 2)?, texts(&batch, 3)?, texts(&batch, 4)?, texts(&batch, 5)?];
        let [users, ips, countries, click_ids] = texts.each_ref().map(|column| column.as_string::<i32>());
        for row in 0..batch.num_rows() {
            let event_time_ms = times.value(row).div_euclid(1_000);
            let minute = Minute::of(event_time_ms);
            if !frontiers.is_live(minute) {
                continue;
            }
            let country = Country::parse(countries.value(row).as_bytes());
            let address = ip::parse(ips.value(row).as_bytes());
            let fields = IdentityFields {
                event_time_ms,
                ad_id: ads.value(row) as u64,
                ip: address.ok_or_else(|| Error::corrupt(format!("a click has the address {}", ips.value(row))))?,
                country: country.rank(),
                user_id: users.value(row).as_bytes(),
                click_id: if click_ids.is_valid(row) { click_ids.value(row).as_bytes() } else { b"" },
            };
            let clicks = live.entry(minute).or_default();
            clicks.identities.push(key.identify(&fields));
            *clicks.rows.entry((fields.ad_id, country)).or_default() += 1;
        }
    }
    let folded = live.into_iter().map(|(minute, LiveClicks { identities, rows })| {
        let mut counts = MinuteCounts::empty(minute);
        rows.into_iter().for_each(|((ad_id, country), clicks)| counts.push(ad_id, country, clicks));
        (minute, FoldedMinute { begun: 1, identities, counts: vec![counts] })
    });
    Ok(folded.collect())
}

fn column(batch: &RecordBatch, at: usize, kind: &DataType) -> Result<arrow::array::ArrayRef> {
    cast(batch.column(at), kind).map_err(|e| Error::internal("a column of the lake is of another type").because(e))
}

fn longs(batch: &RecordBatch, at: usize) -> Result<arrow::array::ArrayRef> {
    column(batch, at, &DataType::Int64)
}

fn texts(batch: &RecordBatch, at: usize) -> Result<arrow::array::ArrayRef> {
    column(batch, at, &DataType::Utf8)
}
