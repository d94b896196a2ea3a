"""Whether counts of different systems are the same rows.

Arguments: the exact counts as CSV, then for each system a file of counts: Parquet, or CSV with the extension .csv.
Prints the number of rows; ends with 1 and a message where some differ.
"""

import sys

import polars
from polars.testing import assert_frame_equal

KEYS = ["minute", "ad_id", "country"]


def read(path: str) -> polars.DataFrame:
    frame = polars.read_csv(path) if path.endswith(".csv") else polars.read_parquet(path)
    if frame["minute"].dtype == polars.String:
        minute = polars.col("minute").str.to_datetime(time_zone="UTC").dt.epoch("s") // 60
        frame = frame.with_columns(minute.alias("minute"))
    frame = frame.select(*(polars.col(name) for name in KEYS), polars.col("clicks"))
    numbers = {name: polars.Int64 for name in ("minute", "ad_id", "clicks")}
    return frame.cast(numbers).sort(KEYS)


truth = read(sys.argv[1])
for path in sys.argv[2:]:
    try:
        assert_frame_equal(read(path), truth)
    except AssertionError as error:
        sys.exit(f"{path} differs from {sys.argv[1]}: {error}")
print(truth.height)
