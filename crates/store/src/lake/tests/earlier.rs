//! Tables that earlier versions made get the columns that they lack.

use super::rolling_up::{held, tokens};
use super::*;
use arrow::array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A lake whose dead letters have the columns of the first version.
async fn first_version() -> Arc<dyn ObjectStore> {
    let root: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let table = Table::DeadLetters;
    let (_, log_store) = stores_of(&root, table).unwrap();
    let fields = table.columns().iter().filter(|column| !column.added).map(Column::delta_field).collect();
    create(table, fields, &DeltaTable::new(log_store)).await.unwrap();
    for other in Table::ALL.into_iter().filter(|&other| other != table) {
        LakeTable::open(&root, other, Access::Create).await.unwrap();
    }
    root
}

/// A file of dead letters without the columns that came later.
fn as_first_version(file: &mut EncodedFile) {
    let batches = ParquetRecordBatchReaderBuilder::try_new(file.bytes.clone()).unwrap().build().unwrap();
    let mut bytes = Vec::new();
    let kept: Vec<usize> = (0..Table::DeadLetters.columns().iter().filter(|column| !column.added).count()).collect();
    for batch in batches {
        let batch: RecordBatch = batch.unwrap().project(&kept).unwrap();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    (file.staged.size, file.bytes) = (bytes.len() as u64, bytes.into());
}

const LETTERS: &str =
    "SELECT epoch, verdict, ad_id, user_id, ip, country, click_id, watermark FROM dead_letters ORDER BY 1";

#[test]
fn a_table_of_the_first_version_gets_its_columns_and_keeps_its_rows() {
    run(async {
        let root = first_version().await;
        let reader = Lake::open_existing(Arc::clone(&root)).await.unwrap();
        assert_eq!(sql(&reader, "SELECT verdict FROM dead_letters").await, Vec::<String>::new());

        let lake = Lake::open_to_write(Arc::clone(&root)).await.unwrap();
        let mut epochs = Vec::new();
        for number in [1, 2, 3, 4] {
            let (projection, mut files) = epoch(number);
            let letters = |file: &&mut EncodedFile| Table::from(file.staged.table) == Table::DeadLetters;
            for file in files.iter_mut().filter(letters).filter(|_| number < 4) {
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
        let again = Lake::open(root).await.unwrap();
        assert_eq!(version(&again), before, "opening it again changes nothing");
        let at = START.start_ms() + 3 * 86_400_000;
        let later = held(4, Some(at), at, at);
        while again.compact(&later, &tokens()).await.unwrap().is_some() {}
        assert_eq!(again.table(Table::DeadLetters).files().await.unwrap().files.len(), 1);
        assert_eq!(sql(&again, LETTERS).await, expected);
        assert_eq!(sql(&again, "SELECT count(ad_id), count(*), max(ad_id) FROM dead_letters").await, ["1|2|42"]);
    });
}
