//! Tables of earlier versions get their missing columns.

use super::rolling_up::{held, tokens};
use super::*;
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A lake whose tables have the columns of the first version.
async fn first_version(root: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    for table in Table::ALL {
        let (_, log_store) = stores_of(&root, table).unwrap();
        let fields = table.columns().iter().filter(|column| !column.is_added()).map(Column::delta_field).collect();
        create(table, fields, &DeltaTable::new(log_store)).await.unwrap();
    }
    root
}

/// Rewrites a file with other columns.
fn rewrite(file: &mut EncodedFile, change: impl Fn(RecordBatch) -> RecordBatch) {
    let batches = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap().build().unwrap();
    let batch = change(batches.map(Result::unwrap).next().unwrap());
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    (file.staged.size, file.bytes) = (bytes.len() as u64, bytes.into());
}

/// A file without the columns that were added later.
fn as_first_version(file: &mut EncodedFile) {
    let added: Vec<&str> = Table::from(file.staged.table)
        .columns()
        .iter()
        .filter(|column| column.is_added())
        .map(|column| column.name)
        .collect();
    rewrite(file, |batch| {
        let fields = batch.schema().fields().clone();
        let kept = (0..fields.len()).filter(|&at| !added.contains(&fields[at].name().as_str()));
        batch.project(&kept.collect::<Vec<_>>()).unwrap()
    });
}

/// A file with an additional column.
fn with_another_column(file: &mut EncodedFile) {
    rewrite(file, |batch| {
        let names = batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        let another = ("of_tomorrow".to_owned(), Arc::clone(&batch.columns()[0]));
        RecordBatch::try_from_iter(names.into_iter().zip(batch.columns().to_vec()).chain([another])).unwrap()
    });
}

/// The columns that were added to other tables.
const OTHERS: [&str; 2] = [
    "SELECT min(sign), count(sign) FROM clicks",
    "SELECT max(watermark), max(final_until), max(event_hour), max(row_hash_sum) FROM ledger",
];

const LETTERS: &str =
    "SELECT epoch, verdict, ad_id, user_id, ip, country, click_id, watermark FROM dead_letters ORDER BY 1";

#[test]
fn a_table_of_the_first_version_gets_its_columns_and_keeps_its_rows() {
    run(async {
        let root = first_version(Arc::new(InMemory::new())).await;
        let reader = Lake::open_existing(Arc::clone(&root)).await.unwrap();
        assert_eq!(sql(&reader, LETTERS).await, Vec::<String>::new(), "a reader needs no owner");
        assert_eq!(sql(&reader, OTHERS[0]).await, ["null|0"]);
        assert_eq!(sql(&reader, OTHERS[1]).await, ["null|null|null|null"]);

        let lake = Lake::open_existing(Arc::clone(&root)).await.unwrap();
        lake.add_columns().await.unwrap();
        let mut epochs = Vec::new();
        for number in [1, 2, 3, 4] {
            let (projection, mut files) = epoch(number);
            for file in files.iter_mut().filter(|_| number < 4) {
                as_first_version(file);
            }
            let staged = files.iter().map(|file| file.staged.clone()).collect();
            lake.stage(&files).await.unwrap();
            epochs.push(EpochProjection { staged, ..projection });
        }
        lake.project(&epochs, TOKEN).await.unwrap();
        let expected = [
            "2|malformed|null|null|null|null|null|null",
            "4|malformed|42|user-1|2001:db8::1|DE|some-id|2025-02-19T21:20:00Z",
        ];
        assert_eq!(sql(&lake, LETTERS).await, expected);
        assert_eq!(sql(&lake, "SELECT count(ad_id), count(*) FROM dead_letters WHERE ip IS NULL").await, ["0|1"]);

        let version = |lake: &Lake| lake.table(Table::DeadLetters).newest.lock().version();
        let before = version(&lake);
        let again = Lake::open_existing(root).await.unwrap();
        again.add_columns().await.unwrap();
        assert_eq!(version(&again), before, "once is enough");
        assert_eq!(sql(&reader, LETTERS).await, expected, "who had it open sees the columns");
        let at = START.start_ms() + 3 * 86_400_000;
        let later = held(4, Some(at), at, at);
        while again.compact(&later, &tokens()).await.unwrap().is_some() {}
        assert_eq!(again.table(Table::DeadLetters).files().await.unwrap().files.len(), 1);
        assert_eq!(sql(&again, LETTERS).await, expected);
        assert_eq!(sql(&again, "SELECT count(ad_id), count(*), max(ad_id) FROM dead_letters").await, ["1|2|42"]);
    });
}

#[test]
fn columns_are_added_once_whatever_fails_and_whoever_adds_them_too() {
    run(async {
        for lost_reply in [false, true] {
            let store = Failing::new("dead_letters/_delta_log");
            let root = first_version(store.clone()).await;
            let lake = Lake::open_existing(Arc::clone(&root)).await.unwrap();
            store.fail(0, usize::MAX, false);
            let failed = lake.add_columns().await.unwrap_err();
            assert!(failed.is_retryable() && failed.report().contains("refused"), "{}", failed.report());
            store.fail(0, 1, lost_reply);
            lake.add_columns().await.unwrap();
            assert_eq!(sql(&lake, LETTERS).await, Vec::<String>::new());
        }
        let root = first_version(Arc::new(InMemory::new())).await;
        let one = Lake::open_existing(Arc::clone(&root)).await.unwrap();
        let other = Lake::open_existing(Arc::clone(&root)).await.unwrap();
        let (first, second) = tokio::join!(one.add_columns(), other.add_columns());
        first.and(second).unwrap();
        one.project(&staged(&one, 1..=4).await, TOKEN).await.unwrap();
        assert_eq!(sql(&other, LETTERS).await.len(), 2);
    });
}

#[test]
fn a_file_with_columns_of_a_later_version_is_not_compacted() {
    run(async {
        let lake = in_memory().await;
        let mut epochs = Vec::new();
        for number in [2, 4] {
            let (projection, mut files) = epoch(number);
            let file = files.iter_mut().find(|file| Table::from(file.staged.table) == Table::DeadLetters).unwrap();
            if number == 2 {
                with_another_column(file);
            }
            let staged = files.iter().map(|file| file.staged.clone()).collect();
            lake.stage(&files).await.unwrap();
            epochs.push(EpochProjection {
                staged,
                progress: Progress { number: number / 2, ..projection.progress },
                ..projection
            });
        }
        lake.project(&epochs, TOKEN).await.unwrap();
        let at = START.start_ms() + 3 * 86_400_000;
        while lake.compact(&held(2, Some(at), at, at), &tokens()).await.unwrap().is_some() {}
        assert_eq!(lake.table(Table::DeadLetters).files().await.unwrap().files.len(), 2);
    });
}
