//! The function `xxhash64` of Spark SQL, so that the same queries run here and there.
//!
//! Source: Spark SQL, `XxHash64`: XXH64 of each argument in turn, with the hash of the arguments before as the seed,
//! 42 at first; a null leaves it as it is. Integers are little-endian, times are microseconds.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use std::sync::Arc;
use twox_hash::XxHash64;

const SEED: u64 = 42;

/// The function.
#[derive(PartialEq, Eq, Hash, Debug)]
pub(super) struct Xxhash64 {
    signature: Signature,
}

impl Default for Xxhash64 {
    fn default() -> Self {
        Xxhash64 { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Xxhash64 {
    fn name(&self) -> &'static str {
        "xxhash64"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut hashes = vec![SEED; args.number_rows];
        for column in ColumnarValue::values_to_arrays(&args.args)? {
            add(&mut hashes, &column)?;
        }
        let hashes: Int64Array = hashes.into_iter().map(u64::cast_signed).collect::<Vec<_>>().into();
        Ok(ColumnarValue::Array(Arc::new(hashes)))
    }
}

/// Adds a column to the hashes of its rows.
fn add(hashes: &mut [u64], column: &ArrayRef) -> Result<()> {
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<Int32Type>();
            each(hashes, column, |row, seed| XxHash64::oneshot(seed, &values.value(row).to_le_bytes()));
        }
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            each(hashes, column, |row, seed| XxHash64::oneshot(seed, &values.value(row).to_le_bytes()));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            each(hashes, column, |row, seed| XxHash64::oneshot(seed, &values.value(row).to_le_bytes()));
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            each(hashes, column, |row, seed| XxHash64::oneshot(seed, values.value(row).as_bytes()));
        }
        DataType::Utf8View => {
            let values = column.as_string_view();
            each(hashes, column, |row, seed| XxHash64::oneshot(seed, values.value(row).as_bytes()));
        }
        DataType::Dictionary(..) => {
            let plain = arrow::compute::cast(column, &DataType::Utf8)?;
            add(hashes, &plain)?;
        }
        other => return exec_err!("xxhash64 does not take {other}"),
    }
    Ok(())
}

fn each(hashes: &mut [u64], column: &ArrayRef, hash: impl Fn(usize, u64) -> u64) {
    for (row, seed) in hashes.iter_mut().enumerate() {
        if column.is_valid(row) {
            *seed = hash(row, *seed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Array, StringArray};

    /// The expected values are from the documentation of Spark SQL and from its test suite.
    #[test]
    fn it_is_the_function_of_spark() {
        let mut hashes = vec![SEED];
        add(&mut hashes, &(Arc::new(StringArray::from(vec!["Spark"])) as ArrayRef)).unwrap();
        assert_eq!(hashes[0].cast_signed(), -4_294_468_057_691_064_905);
        let mut hashes = vec![SEED];
        add(&mut hashes, &(Arc::new(Int32Array::from(vec![None::<i32>])) as ArrayRef)).unwrap();
        assert_eq!(hashes, [SEED]);
    }
}
