"""Reads a lake on S3 again and again while it is written, with one of three readers.

Usage: follow_lake.py duckdb|polars|spark URL

URL is that of the lake, s3://BUCKET/PATH/lake. The store and its keys are in AWS_ENDPOINT, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and AWS_REGION; the endpoint is plain HTTP. Spark takes its packages and settings from
PYSPARK_SUBMIT_ARGS.

For each line on standard input, a line of JSON is printed: the last epoch of each partition in the table `ledger`, the
clicks counted until then, and the clicks of these epochs in `clicks_by_minute` and in `clicks`. `differences` is the number
of minutes, ads and countries whose clicks differ between the two. For the line `counts`, the rows of both are printed as
well, as CSV. The first line that is printed says that the reader is ready. It ends at the end of standard input.
"""

import json
import os
import sys
from datetime import datetime, timezone
from importlib.resources import files

# The ledger is written last. If it is read first, the other tables have all its epochs.
LEDGER = """SELECT partition, max(epoch) AS epoch, max(counted) AS counted FROM ledger
    WHERE input IS NULL AND event_hour IS NULL GROUP BY partition"""

# Counts by minute since 1970, ad and country; `minutes` is a column that each reader adds.
COUNTS = {
    "clicks_by_minute": "SELECT minutes, ad_id, country, sum(clicks) AS clicks FROM clicks_by_minute",
    "clicks": "SELECT minutes, ad_id, country, sum(sign) AS clicks FROM clicks",
}

# The times from which `minutes` is made.
TIMES = {"clicks_by_minute": "minute", "clicks": "click_timestamp"}


class DuckDb:
    """SQL of `duckdb`, whose extensions `delta` and `httpfs` are Python packages here."""

    def __init__(self, lake: str) -> None:
        import duckdb

        self.lake = lake
        self.connection = duckdb.connect()
        for name in ("httpfs", "delta"):
            package = files(f"duckdb_extension_{name}")
            extension = package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
            self.connection.execute(f"LOAD '{extension}'")
        self.connection.execute(
            f"""CREATE SECRET (TYPE s3, KEY_ID '{os.environ["AWS_ACCESS_KEY_ID"]}',
                SECRET '{os.environ["AWS_SECRET_ACCESS_KEY"]}', REGION '{os.environ["AWS_REGION"]}',
                ENDPOINT '{os.environ["AWS_ENDPOINT"].removeprefix("http://")}', URL_STYLE 'path', USE_SSL false)"""
        )

    def rows(self, table: str, query: str) -> list:
        scan = f"SELECT * FROM delta_scan('{self.lake}/{table}')"
        if table in TIMES:
            scan = scan.replace("*", f"*, epoch_us({TIMES[table]}) // 60000000 AS minutes")
        return self.connection.execute(f"WITH {table} AS ({scan}) {query}").fetchall()


class Polars:
    """SQL of `polars`; the package `deltalake` reads the log of a table for it."""

    def __init__(self, lake: str) -> None:
        import polars

        self.lake = lake
        self.polars = polars
        self.options = {
            "aws_endpoint_url": os.environ["AWS_ENDPOINT"],
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "aws_region": os.environ["AWS_REGION"],
            "aws_allow_http": "true",
        }

    def rows(self, table: str, query: str) -> list:
        scan = self.polars.scan_delta(f"{self.lake}/{table}", storage_options=self.options)
        if table in TIMES:
            scan = scan.with_columns(minutes=self.polars.col(TIMES[table]).dt.epoch("s") // 60)
        return self.polars.SQLContext({table: scan}).execute(query, eager=True).rows()


class Spark:
    """SQL of Apache Spark, which reads S3 with S3A of Hadoop."""

    def __init__(self, lake: str) -> None:
        from pyspark.sql import SparkSession

        self.lake = lake.replace("s3://", "s3a://", 1)
        self.session = SparkSession.builder.appName("follow-lake").getOrCreate()

    def rows(self, table: str, query: str) -> list:
        scan = f"SELECT * FROM delta.`{self.lake}/{table}`"
        if table in TIMES:
            scan = scan.replace("*", f"*, unix_micros({TIMES[table]}) div 60000000 AS minutes")
        return [tuple(row) for row in self.session.sql(f"WITH {table} AS ({scan}) {query}").collect()]


READERS = {"duckdb": DuckDb, "polars": Polars, "spark": Spark}


def as_csv(counts: dict) -> str:
    """Rows as `adtally generate --truth` writes them."""
    lines = ["minute,ad_id,country,clicks"]
    for (minutes, ad_id, country), clicks in sorted(counts.items()):
        minute = datetime.fromtimestamp(minutes * 60, timezone.utc)
        lines.append(f"{minute:%Y-%m-%dT%H:%M:%SZ},{ad_id},{country},{clicks}")
    return "\n".join(lines) + "\n"


def read(reader: DuckDb | Polars | Spark) -> tuple[dict, dict]:
    """What the tables have up to the epochs of the ledger, and the counts of both tables."""
    held = reader.rows("ledger", LEDGER)
    epochs = {partition: epoch for partition, epoch, _ in held}
    within = " OR ".join(f"(partition = {partition} AND epoch <= {epoch})" for partition, epoch in epochs.items())
    counts = {}
    for table, query in COUNTS.items():
        found = reader.rows(table, f"{query} WHERE {within or 'false'} GROUP BY minutes, ad_id, country")
        counts[table] = {(minutes, ad_id, country): int(clicks) for minutes, ad_id, country, clicks in found}
    groups = counts["clicks"].keys() | counts["clicks_by_minute"].keys()
    differences = [group for group in groups if counts["clicks"].get(group) != counts["clicks_by_minute"].get(group)]
    of = {"epochs": epochs, "counted": sum(counted for _, _, counted in held), "differences": len(differences)}
    return of | {table: sum(rows.values()) for table, rows in counts.items()}, counts


def main() -> None:
    """Answers the lines of standard input."""
    if len(sys.argv) != 3 or sys.argv[1] not in READERS:
        sys.exit(__doc__)
    reader = READERS[sys.argv[1]](sys.argv[2])
    print(json.dumps({"ready": sys.argv[1]}), flush=True)
    for line in sys.stdin:
        answer, counts = read(reader)
        if line.strip() == "counts":
            answer |= {f"{table}.csv": as_csv(rows) for table, rows in counts.items()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
