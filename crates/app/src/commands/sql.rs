//! `adtally sql`: ad-hoc SQL over the lake.

use super::{existing, runtime};
use crate::cli::{DataDirArg, TableFormat};
use crate::exit::Exit;
use crate::run::service::open_stores;
use crate::terminal;
use adtally_model::{Error, Result};
use arrow::record_batch::RecordBatch;
use clap::Args;
use futures::TryStreamExt;

/// Rows that a table for people shows; the other formats show all.
const TABLE_ROWS_MAX: usize = 10_000;

/// Ask the lake in SQL; read only, also while `run` is writing.
#[derive(Debug, Args)]
#[command(
    after_help = "Tables: clicks, clicks_by_minute, clicks_by_hour, clicks_by_day, dead_letters, corrections, ledger.\n\n\
    Example: adtally sql --data-dir adtally-data \"SELECT country, sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 2 DESC\""
)]
pub struct SqlArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data_dir: DataDirArg,
    /// The query.
    #[arg(value_name = "SELECT ...")]
    pub query: String,
    /// How rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub format: TableFormat,
}

/// Runs the command.
///
/// # Errors
/// A user error for a wrong query.
pub fn sql(args: &SqlArgs) -> Result<Exit> {
    existing(&args.data_dir.data_dir)?;
    let runtime = runtime()?;
    let query = args.query.clone();
    let data_dir = args.data_dir.data_dir.clone();
    // On a thread of the runtime, whose stack is large enough for planning.
    let answered = runtime.block_on(runtime.spawn(async move {
        let stores = open_stores(&data_dir, true).await?;
        let answer = stores.lake.sql(&query).await?;
        let schema = answer.schema;
        let batches: Vec<RecordBatch> = answer.batches.try_collect().await?;
        Ok::<_, Error>((schema, batches))
    }));
    let (schema, batches) = answered.map_err(|e| Error::internal("the query's task died").because(e))??;
    match args.format {
        TableFormat::Table => print_table(schema, &batches)?,
        TableFormat::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
            if batches.is_empty() {
                writer.write(&RecordBatch::new_empty(schema)).map_err(unprintable)?;
            }
            for batch in &batches {
                writer.write(batch).map_err(unprintable)?;
            }
            terminal::print(&String::from_utf8_lossy(&writer.into_inner()))?;
        }
        TableFormat::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
            writer.write_batches(&batches.iter().collect::<Vec<_>>()).map_err(unprintable)?;
            writer.finish().map_err(unprintable)?;
            terminal::print(&String::from_utf8_lossy(&writer.into_inner()))?;
        }
    }
    Ok(Exit::Success)
}

fn print_table(schema: arrow::datatypes::SchemaRef, batches: &[RecordBatch]) -> Result<()> {
    let mut shown = vec![RecordBatch::new_empty(schema)];
    let mut room = TABLE_ROWS_MAX;
    for batch in batches {
        let rows = batch.num_rows().min(room);
        shown.push(batch.slice(0, rows));
        room -= rows;
    }
    let table = arrow::util::pretty::pretty_format_batches(&shown).map_err(unprintable)?;
    terminal::print(&format!("{table}\n"))?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows > TABLE_ROWS_MAX {
        terminal::say(&format!("the first {TABLE_ROWS_MAX} of {rows} rows: use --format csv or json for all of them"));
    }
    Ok(())
}

fn unprintable(error: arrow::error::ArrowError) -> Error {
    Error::internal("the rows cannot be printed in this format").because(error)
}
