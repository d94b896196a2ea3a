"""Sums of the lake's tables as another program finds them, as JSON on standard output.

Usage: read_lake.py deltalake|polars LAKE
"""

import json
import sys
from pathlib import Path


def of_deltalake(lake: Path) -> dict:
    """Sums by SQL in the Rust engine of the Python package `deltalake`."""
    from deltalake import DeltaTable, QueryBuilder

    engine = QueryBuilder()
    for table in ("clicks", "clicks_by_minute", "clicks_by_hour", "clicks_by_day", "dead_letters", "ledger"):
        engine = engine.register(table, DeltaTable(str(lake / table)))

    def rows(query: str) -> list:
        table = engine.execute(query).read_all()
        columns = [table.column(at).to_pylist() for at in range(table.num_columns)]
        return [list(row) for row in zip(*columns)]

    def number(query: str) -> int:
        return rows(query)[0][0]

    return {
        "raw_clicks": number("SELECT count(*) FROM clicks"),
        "raw_users": number("SELECT count(DISTINCT user_id) FROM clicks"),
        "clicks": number("SELECT sum(clicks) FROM clicks_by_minute"),
        "ads": number("SELECT count(DISTINCT ad_id) FROM clicks_by_minute"),
        "minutes": rows(
            "SELECT CAST(date_part('epoch', minute) AS BIGINT), sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 1"
        ),
        "by_hour": rows(
            "SELECT CAST(date_part('epoch', hour) AS BIGINT), sum(clicks) FROM clicks_by_hour GROUP BY 1 ORDER BY 1"
        ),
        "by_day": rows(
            "SELECT CAST(date_part('epoch', day) AS BIGINT), sum(clicks) FROM clicks_by_day GROUP BY 1 ORDER BY 1"
        ),
        "countries": rows("SELECT country, sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 1"),
        "hours": rows(
            "SELECT CAST(click_date AS VARCHAR), click_hour, count(*) FROM clicks GROUP BY 1, 2 ORDER BY 1, 2"
        ),
        "dead_letters": rows("SELECT verdict, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1"),
        "read": number("SELECT max(read) FROM ledger WHERE input IS NULL"),
    }


def of_polars(lake: Path) -> dict:
    """Sums by the data frames of `polars`, which reads the Parquet files itself."""
    import polars as pl

    tables = ("clicks", "clicks_by_minute", "clicks_by_hour", "clicks_by_day", "dead_letters", "ledger")
    clicks, minutes, hours, days, letters, ledger = (pl.scan_delta(str(lake / table)) for table in tables)

    def number(frame: pl.LazyFrame) -> int:
        return frame.collect().item()

    def rows(frame: pl.LazyFrame, keys: list, value: pl.Expr) -> list:
        names = [key.meta.output_name() for key in keys]
        return [list(row) for row in frame.group_by(keys).agg(value).sort(names).collect().rows()]

    return {
        "raw_clicks": number(clicks.select(pl.len())),
        "raw_users": number(clicks.select(pl.col("user_id").n_unique())),
        "clicks": number(minutes.select(pl.col("clicks").sum())),
        "ads": number(minutes.select(pl.col("ad_id").n_unique())),
        "minutes": rows(minutes, [pl.col("minute").dt.epoch("s")], pl.col("clicks").sum()),
        "by_hour": rows(hours, [pl.col("hour").dt.epoch("s")], pl.col("clicks").sum()),
        "by_day": rows(days, [pl.col("day").dt.epoch("s")], pl.col("clicks").sum()),
        "countries": rows(minutes, [pl.col("country")], pl.col("clicks").sum()),
        "hours": rows(
            clicks, [pl.col("click_date").cast(pl.String), pl.col("click_hour")], pl.len().alias("lines")
        ),
        "dead_letters": rows(letters, [pl.col("verdict")], pl.len()),
        "read": number(ledger.filter(pl.col("input").is_null()).select(pl.col("read").max())),
    }


def main() -> None:
    """Prints what the reader that is asked for finds; every cell of a row is text."""
    readers = {"deltalake": of_deltalake, "polars": of_polars}
    if len(sys.argv) != 3 or sys.argv[1] not in readers:
        sys.exit(__doc__)
    sums = readers[sys.argv[1]](Path(sys.argv[2]))
    for name, value in sums.items():
        if isinstance(value, list):
            sums[name] = [[str(cell) for cell in row] for row in value]
    json.dump(sums, sys.stdout)


if __name__ == "__main__":
    main()
