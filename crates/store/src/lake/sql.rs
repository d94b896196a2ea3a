//! Ad-hoc, read-only SQL over the tables.
//!
//! A session has access to the tables and the object store of the lake only: no file system, no other object store, no
//! statement that changes anything. Tables are cut at the smallest epoch that all of them contain, so that a query over
//! several tables sees them agree while epochs are written.

mod checked;
mod failures;

use super::files::Epochs;
use super::schema::Table;
use super::{Lake, ROOT_URL, delta_error};
use adtally_model::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
pub use failures::query_error;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use url::Url;

/// Memory that one query may use; a query that needs more fails with an error that says so.
const QUERY_MEMORY_BYTES_MAX: usize = 1 << 30;

/// Maximum bytes of a query's text. Queries by people are shorter, and this bounds the parser's work.
const QUERY_BYTES_MAX: usize = 64 * 1024;

/// The rows of an answer, in batches.
pub struct SqlAnswer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl std::fmt::Debug for SqlAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqlAnswer({})", self.schema)
    }
}

impl Lake {
    /// Runs one SQL query over the tables. Deep queries need deep stacks: call this on threads with 8 MiB.
    ///
    /// # Errors
    /// User when the query is wrong, changes something or needs too much memory; external when the store fails.
    pub async fn sql(&self, query: &str) -> Result<SqlAnswer> {
        self.sql_at(query, &self.epochs().await?).await
    }

    /// The same over the epochs of `cut` that all tables contain.
    ///
    /// # Errors
    /// As [`Lake::sql`].
    pub async fn sql_at(&self, query: &str, cut: &Epochs) -> Result<SqlAnswer> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Error::user(format!("the query is longer than {QUERY_BYTES_MAX} bytes: shorten it")));
        }
        let session = self.session_at(cut, QUERY_MEMORY_BYTES_MAX).await?;
        let state = session.state();
        let plan = state.create_logical_plan(query).await.map_err(query_error)?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let allowed = read_only.verify_plan(&plan).is_ok() && !matches!(plan, LogicalPlan::Analyze(_));
        if !allowed {
            return Err(Error::user(
                "only queries are allowed (SELECT, WITH, VALUES, SHOW, DESCRIBE, EXPLAIN): the lake is read only",
            ));
        }
        let frame = session.execute_logical_plan(plan).await.map_err(query_error)?;
        let batches = frame.execute_stream().await.map_err(query_error)?;
        Ok(SqlAnswer { schema: batches.schema(), batches: batches.map(|batch| batch.map_err(query_error)).boxed() })
    }

    /// A session with access to the tables only, up to the epochs of `cut` that all tables contain.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a table is damaged.
    pub async fn session_at(&self, cut: &Epochs, memory_bytes_max: usize) -> Result<SessionContext> {
        self.session(&self.cut_at(Some(cut)).await?, memory_bytes_max).await
    }

    async fn session(&self, epochs: &Epochs, memory_bytes_max: usize) -> Result<SessionContext> {
        let failed =
            |error: DataFusionError| Error::internal("cannot start a SQL session: please report this").because(error);
        let config = SessionConfig::new()
            .with_information_schema(true)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true)
            .set_str("datafusion.execution.time_zone", "UTC");
        let registry = DefaultObjectStoreRegistry::new();
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(Arc::new(registry))
            // Operators share all memory. A fair pool would reserve a part for each one that can spill; none can.
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(memory_bytes_max)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(failed)?;
        let root = Url::parse(ROOT_URL)
            .map_err(|error| Error::internal("the lake has no address: please report this").because(error))?;
        runtime.register_object_store(&root, Arc::clone(&self.store));
        // The default registry includes the local file system, which queries must not access.
        if let Ok(files) = Url::parse("file://") {
            runtime.register_object_store(&files, Arc::new(object_store::memory::InMemory::new()));
        }
        let session = SessionContext::new_with_config_rt(config, runtime);
        session.add_analyzer_rule(Arc::new(checked::CheckedIntegers));
        for table in Table::ALL {
            let latest = self.table(table).latest().await?;
            let provider = latest.table_provider().await.map_err(|error| {
                delta_error(table, "query", deltalake_core::DeltaTableError::GenericError { source: Box::new(error) })
            })?;
            let mut cut = session.read_table(provider).map_err(failed)?.filter(within(epochs)).map_err(failed)?;
            for column in table.columns().iter().filter(|column| column.is_added()) {
                // A lake of an earlier version lacks it until an owner adds it.
                if !cut.schema().has_column_with_unqualified_name(column.name) {
                    cut = cut.with_column(column.name, column.kind.null()).map_err(failed)?;
                }
            }
            if table == Table::Clicks {
                // Rows of earlier versions have no sign: they are clicks, not reversals.
                let sign = coalesce(vec![col("sign"), lit(1_i32)]);
                cut = cut.with_column("sign", sign).map_err(failed)?;
            }
            session.register_table(table.name(), cut.into_view()).map_err(failed)?;
        }
        Ok(session)
    }
}

/// The condition that all tables contain a row's epoch.
fn within(epochs: &Epochs) -> Expr {
    let of = |(partition, epoch): (u32, u64)| {
        let partition = col("partition").eq(lit(i64::from(partition)));
        partition.and(col("epoch").lt_eq(lit(super::statistics::bound(epoch))))
    };
    epochs.iter().map(of).reduce(Expr::or).unwrap_or_else(|| lit(false))
}
