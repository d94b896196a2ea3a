"""Polars: parse, deduplicate, write the raw clicks as Parquet, count them by minute, ad and country.

In the generated log a country may be in lower case, empty, missing or XX, which is nobody's.
Arguments: the log, a folder for what is written. Prints the seconds from the first query to the end of the last.
"""

import sys
import time

import polars

LOG, OUT = sys.argv[1:3]
SCHEMA = {
    "click_timestamp": polars.Int64,
    "ad_id": polars.Int64,
    "user_id": polars.String,
    "ip": polars.String,
    "country": polars.String,
}

began = time.perf_counter()
country = polars.col("country").fill_null("").str.to_uppercase()
clicks = (
    polars.scan_ndjson(LOG, schema=SCHEMA)
    .unique(["click_timestamp", "ad_id", "user_id", "ip"], keep="any")
    .with_columns(polars.when(country.is_in(["", "XX"])).then(polars.lit("ZZ")).otherwise(country).alias("country"))
)
clicks.sink_parquet(f"{OUT}/clicks.parquet", compression="zstd")
counts = (
    polars.scan_parquet(f"{OUT}/clicks.parquet")
    .group_by((polars.col("click_timestamp") // 60_000).alias("minute"), "ad_id", "country")
    .agg(polars.len().cast(polars.Int64).alias("clicks"))
)
counts.sink_parquet(f"{OUT}/counts.parquet", compression="zstd")
print(time.perf_counter() - began)
