//! `adtally sql`: ad-hoc SQL over the lake.

use super::settings::StoreSettings;
use super::{existing, runtime};
use crate::exit::Exit;
use crate::terminal;
use adtally_model::time::parse_rfc3339;
use adtally_model::{Error, Result};
use adtally_store::backing::Backing;
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::SqlAnswer;
use adtally_store::questions::{KnownAt, Revision};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use clap::{Args, ValueEnum};
use futures::TryStreamExt;
use std::io::Read;
use std::path::Path;

/// Maximum rows of format `table`; the other formats print all.
const TABLE_ROWS_MAX: usize = 10_000;

/// Query the Delta tables with SQL. Only reads, and works while `run` is writing.
#[derive(Debug, Args)]
#[command(
    after_help = "Tables: clicks, clicks_by_minute, clicks_by_hour, clicks_by_day, dead_letters, corrections, ledger.\n\n\
    Example: adtally sql --data-dir adtally-data \"SELECT country, sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 2 DESC\""
)]
pub struct SqlArgs {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Query the tables as they were at this time (RFC 3339), or at the revision of an answer.
    #[arg(long, value_name = "TIME or REVISION", value_parser = known_at)]
    pub as_of: Option<KnownAt>,
    /// The query; `-` reads it from standard input.
    #[arg(value_name = "SELECT ...", allow_hyphen_values = true)]
    pub query: String,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub format: TableFormat,
}

/// How rows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TableFormat {
    /// For people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Json,
}

/// Runs the command.
///
/// # Errors
/// A user error for a wrong query.
pub fn sql(args: &SqlArgs) -> Result<Exit> {
    if args.query == "-" && args.store.config.as_deref() == Some(Path::new("-")) {
        return Err(Error::user(
            "standard input cannot be both the configuration and the query: name a file for one of them",
        ));
    }
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let runtime = runtime()?;
    let (query, format, data_dir) = (query(&args.query)?, args.format, config.run.store.data_dir);
    let as_of = args.as_of.clone();
    // On a thread of the runtime, whose stack is large enough for planning.
    let answered = runtime.block_on(runtime.spawn(async move {
        let backing = Backing::for_reader(&data_dir)?;
        let lake = backing.existing_lake().await?;
        let answer = match as_of {
            None => lake.sql(&query).await?,
            Some(as_of) => {
                let known = lake.known_at(&as_of, &revision(&backing.logs()).await?).await?;
                lake.sql_at(&query, &known.epochs).await?
            }
        };
        match format {
            TableFormat::Table => print_table(answer).await,
            TableFormat::Csv => {
                check_flat(&answer)?;
                print_rows(answer, csv).await
            }
            TableFormat::Json => print_rows(answer, |batch, _| json(batch)).await,
        }
    }));
    answered.map_err(|e| Error::internal("the query stopped unexpectedly").because(e))??;
    Ok(Exit::Success)
}

/// The time or the revision that an argument denotes.
fn known_at(text: &str) -> std::result::Result<KnownAt, String> {
    let time = parse_rfc3339(text.as_bytes()).map(KnownAt::Time);
    let known = time.or_else(|| text.parse().ok().map(KnownAt::Revision));
    known.ok_or_else(|| "no RFC 3339 time such as 2026-01-31T10:00:00Z, and no revision of an answer".to_owned())
}

/// The newest epoch of each partition.
async fn revision(logs: &EpochLogs) -> Result<Revision> {
    let mut newest = Vec::new();
    for partition in logs.partitions().await? {
        newest.extend(logs.log(partition).newest().await?);
    }
    Ok(Revision::of(newest.iter().map(|epoch| &epoch.progress)))
}

/// The query that an argument denotes. A query may begin with a comment. A single word that begins with a dash is a
/// misspelt flag.
fn query(argument: &str) -> Result<String> {
    if argument == "-" {
        let mut query = String::new();
        std::io::stdin()
            .read_to_string(&mut query)
            .map_err(|e| Error::user("the query cannot be read from standard input").because(e))?;
        return Ok(query);
    }
    if argument.starts_with('-') && !argument.contains(char::is_whitespace) {
        return Err(Error::user(format!(
            "there is no flag `{argument}`: `adtally sql --help` lists the flags. If this is a comment, write the \
             query on the next line"
        )));
    }
    Ok(argument.to_owned())
}

/// Rejects lists and structures, which CSV cannot represent.
fn check_flat(answer: &SqlAnswer) -> Result<()> {
    match answer.schema.fields().iter().find(|field| field.data_type().is_nested()) {
        None => Ok(()),
        Some(nested) => Err(Error::user(format!(
            "the column `{}` is {}, which CSV cannot represent: use --format json, or convert it to text, for example \
             with array_to_string",
            nested.name(),
            nested.data_type()
        ))),
    }
}

/// Prints each batch as it arrives, until the reader goes away; `text` gets whether it is the first.
async fn print_rows(
    mut answer: SqlAnswer,
    text: impl Fn(&RecordBatch, bool) -> Result<Vec<u8>, ArrowError>,
) -> Result<()> {
    // An empty batch, so that columns are named even without rows.
    let header = text(&RecordBatch::new_empty(answer.schema), true).map_err(unprintable)?;
    let mut goes_on = header.is_empty() || terminal::print_on(&header)?;
    while goes_on && let Some(batch) = answer.batches.try_next().await? {
        goes_on = terminal::print_on(&text(&batch, false).map_err(unprintable)?)?;
    }
    Ok(())
}

fn csv(batch: &RecordBatch, first: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer = arrow::csv::WriterBuilder::new().with_header(first).build(Vec::new());
    writer.write(batch)?;
    Ok(writer.into_inner())
}

fn json(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    // Every row has every column, so that readers find all of them.
    let writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = writer.build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

/// Prints the first rows and reads no more.
async fn print_table(mut answer: SqlAnswer) -> Result<()> {
    let mut shown = vec![RecordBatch::new_empty(answer.schema)];
    let (mut room, mut more) = (TABLE_ROWS_MAX, false);
    while !more && let Some(batch) = answer.batches.try_next().await? {
        let rows = batch.num_rows().min(room);
        shown.push(batch.slice(0, rows));
        room -= rows;
        more = batch.num_rows() > rows;
    }
    let table = arrow::util::pretty::pretty_format_batches(&shown).map_err(unprintable)?;
    terminal::print_text(&format!("{table}\n"))?;
    if more {
        terminal::say(&format!("these are the first {TABLE_ROWS_MAX} rows: use --format csv or json for all of them"));
    }
    Ok(())
}

fn unprintable(error: ArrowError) -> Error {
    Error::user("the rows cannot be printed in this format: cast the columns to other types").because(error)
}
