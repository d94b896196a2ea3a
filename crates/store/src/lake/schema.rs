//! The tables of the lake: names, columns, types. Every reader of the lake depends on them.

use adtally_model::{RECONCILE, StagedTable};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, cast, lit};
use deltalake_core::kernel::{DataType, PrimitiveType, StructField};
use std::fmt;
use std::sync::Arc;

/// A table of the lake. Its folder has the same name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// All counted clicks.
    Clicks,
    /// Lines that were not counted, for reconciliation and repair.
    DeadLetters,
    /// Clicks by minute, ad and country; additive: sum the rows.
    ClicksByMinute,
    /// Clicks by hour, ad and country.
    ClicksByHour,
    /// Clicks by day, ad and country.
    ClicksByDay,
    /// The changes made by reconciliation, and the reasons.
    Corrections,
    /// Lines by verdict, cumulative, by epoch.
    Ledger,
}

/// The type of a column, in Delta and in Parquet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
    /// 64 bits, signed.
    Long,
    /// 32 bits, signed.
    Int,
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
    /// Days since the Unix epoch.
    Date,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its type.
    pub(crate) kind: Kind,
    /// Whether rows and tables may lack it.
    pub(crate) presence: Presence,
}

/// Whether rows and tables may lack a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Presence {
    /// Every row has it.
    Required,
    /// Rows may lack it.
    Optional,
    /// Rows may lack it, and so may tables of earlier versions. An owner adds it when opening them; it is null in their
    /// rows.
    Added,
}

impl Column {
    /// The column for Delta. It is nullable there, since a required column needs features that old writers lack.
    pub(crate) fn delta_field(&self) -> StructField {
        StructField::nullable(self.name, DataType::Primitive(self.kind.delta()))
    }

    /// Whether tables of earlier versions lack it.
    pub(crate) fn is_added(&self) -> bool {
        self.presence == Presence::Added
    }
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, presence: Presence::Required }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, presence: Presence::Optional }
}

const fn added(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, presence: Presence::Added }
}

const CLICKS: &[Column] = &[
    column("click_timestamp", Kind::Timestamp),
    column("ad_id", Kind::Long),
    column("user_id", Kind::Text),
    column("ip", Kind::Text),
    column("country", Kind::Text),
    optional("click_id", Kind::Text),
    column("input", Kind::Text),
    column("position", Kind::Long),
    column("partition", Kind::Int),
    column("epoch", Kind::Long),
    column("click_date", Kind::Date),
    column("click_hour", Kind::Int),
    added("sign", Kind::Int),
];

const DEAD_LETTERS: &[Column] = &[
    column("verdict", Kind::Text),
    column("reason", Kind::Text),
    column("payload", Kind::Bytes),
    column("input", Kind::Text),
    column("position", Kind::Long),
    column("received_at", Kind::Timestamp),
    optional("click_timestamp", Kind::Timestamp),
    column("partition", Kind::Int),
    column("epoch", Kind::Long),
    added("ad_id", Kind::Long),
    added("user_id", Kind::Text),
    added("ip", Kind::Text),
    added("country", Kind::Text),
    added("click_id", Kind::Text),
    added("watermark", Kind::Timestamp),
    added("header", Kind::Bytes),
];

/// The columns of a table of counts; the first one is named after the span.
const fn counts_by(span: &'static str) -> [Column; 7] {
    [
        column(span, Kind::Timestamp),
        column("ad_id", Kind::Long),
        column("country", Kind::Text),
        column("clicks", Kind::Long),
        column("partition", Kind::Int),
        column("epoch", Kind::Long),
        optional("correction", Kind::Text),
    ]
}

const CLICKS_BY_MINUTE: &[Column] = &counts_by("minute");
const CLICKS_BY_HOUR: &[Column] = &counts_by("hour");
const CLICKS_BY_DAY: &[Column] = &counts_by("day");

const CORRECTIONS: &[Column] = &[
    column("correction", Kind::Text),
    column("minute", Kind::Timestamp),
    column("ad_id", Kind::Long),
    column("country", Kind::Text),
    column("clicks", Kind::Long),
    column("cause", Kind::Text),
    column("made_at", Kind::Timestamp),
    column("made_by", Kind::Text),
    column("partition", Kind::Int),
    column("epoch", Kind::Long),
];

const LEDGER: &[Column] = &[
    column("partition", Kind::Int),
    column("epoch", Kind::Long),
    column("committed_at", Kind::Timestamp),
    optional("input", Kind::Text),
    column("read", Kind::Long),
    column("counted", Kind::Long),
    column("duplicate", Kind::Long),
    column("late", Kind::Long),
    column("future", Kind::Long),
    column("malformed", Kind::Long),
    column("invalid", Kind::Long),
    column("conflicting_duplicates", Kind::Long),
    column("gap_bytes", Kind::Long),
    added("watermark", Kind::Timestamp),
    added("closed_until", Kind::Timestamp),
    added("final_until", Kind::Timestamp),
    added("newest_click", Kind::Timestamp),
    added("event_hour", Kind::Timestamp),
    added("clicks", Kind::Long),
    added("row_hash_sum", Kind::Long),
];

impl Table {
    /// All tables, in the order in which epochs are projected to them.
    pub const ALL: [Table; 7] = [
        Table::Clicks,
        Table::DeadLetters,
        Table::ClicksByMinute,
        Table::ClicksByHour,
        Table::ClicksByDay,
        Table::Corrections,
        Table::Ledger,
    ];

    /// The tables that every epoch is projected to, in the order in which they are written. The ledger is last, so all
    /// tables contain an epoch that it contains.
    pub const PROJECTED: [Table; 4] = [Table::Clicks, Table::DeadLetters, Table::ClicksByMinute, Table::Ledger];

    /// The same for one partition. Epochs of the partition `reconcile` also correct hours and days at once.
    pub const fn projected(partition: u32) -> &'static [Table] {
        match partition {
            RECONCILE => &Table::ALL,
            _ => &Table::PROJECTED,
        }
    }

    /// Its name in SQL and its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Clicks => "clicks",
            Table::DeadLetters => "dead_letters",
            Table::ClicksByMinute => "clicks_by_minute",
            Table::ClicksByHour => "clicks_by_hour",
            Table::ClicksByDay => "clicks_by_day",
            Table::Corrections => "corrections",
            Table::Ledger => "ledger",
        }
    }

    /// The columns that determine the folders of its files. The files do not contain them.
    pub const fn partition_columns(self) -> &'static [&'static str] {
        match self {
            Table::Clicks => &["click_date", "click_hour"],
            _ => &[],
        }
    }

    /// The column of its main time, by which files are pruned.
    pub(crate) const fn time_column(self) -> &'static str {
        match self {
            Table::Clicks => "click_timestamp",
            Table::DeadLetters => "received_at",
            Table::ClicksByMinute | Table::Corrections => "minute",
            Table::ClicksByHour => "hour",
            Table::ClicksByDay => "day",
            Table::Ledger => "committed_at",
        }
    }

    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Table::Clicks => CLICKS,
            Table::DeadLetters => DEAD_LETTERS,
            Table::ClicksByMinute => CLICKS_BY_MINUTE,
            Table::ClicksByHour => CLICKS_BY_HOUR,
            Table::ClicksByDay => CLICKS_BY_DAY,
            Table::Corrections => CORRECTIONS,
            Table::Ledger => LEDGER,
        }
    }

    /// Its columns for Delta.
    pub(crate) fn delta_fields(self) -> Vec<StructField> {
        self.columns().iter().map(Column::delta_field).collect()
    }

    /// The columns in its files.
    pub(crate) fn file_schema(self) -> SchemaRef {
        let held = self.columns().iter().filter(|column| !self.partition_columns().contains(&column.name));
        let fields: Vec<Field> = held
            .map(|column| Field::new(column.name, column.kind.arrow(), column.presence != Presence::Required))
            .collect();
        Arc::new(Schema::new(fields))
    }

    /// Its index in [`Table::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl From<StagedTable> for Table {
    fn from(table: StagedTable) -> Self {
        match table {
            StagedTable::Clicks => Table::Clicks,
            StagedTable::DeadLetters => Table::DeadLetters,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of all timestamps in the files.
pub(crate) fn timestamp_type() -> ArrowType {
    ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl Kind {
    const fn delta(self) -> PrimitiveType {
        match self {
            Kind::Timestamp => PrimitiveType::Timestamp,
            Kind::Long => PrimitiveType::Long,
            Kind::Int => PrimitiveType::Integer,
            Kind::Text => PrimitiveType::String,
            Kind::Bytes => PrimitiveType::Binary,
            Kind::Date => PrimitiveType::Date,
        }
    }

    /// A null of this type, for queries.
    pub(crate) fn null(self) -> Expr {
        cast(lit(ScalarValue::Null), self.arrow())
    }

    fn arrow(self) -> ArrowType {
        match self {
            Kind::Timestamp => timestamp_type(),
            Kind::Long => ArrowType::Int64,
            Kind::Int => ArrowType::Int32,
            Kind::Text => ArrowType::Utf8,
            Kind::Bytes => ArrowType::Binary,
            Kind::Date => ArrowType::Date32,
        }
    }
}
