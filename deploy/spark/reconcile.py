"""Recounts the final minutes of an Adtally lake with Spark, by the queries that `adtally reconcile` runs.

It reads the Delta tables and writes what it finds as lines of JSON; it changes nothing in the lake. The command

    adtally reconcile --apply FINDINGS --data-dir DIR

recounts the minutes of these findings once more, and commits the corrections.

    spark-submit --packages io.delta:delta-spark_2.13:4.4.0 \\
        --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \\
        --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \\
        reconcile.py --lake DIR/lake --findings FINDINGS

A lake on S3 is `--lake s3a://BUCKET/PATH/lake`; docs/scale-out.md names the packages and settings for it.

Every minute that is final in every source partition, and whose raw clicks, counts and dead letters are kept, is recounted,
unless --from and --to name others. Nothing is recounted in hours in which the table `clicks` is damaged: they are findings of
their own. Counts by hour and by day are not compared: `adtally reconcile` does that.
"""

import argparse
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

# The partition of corrections.
RECONCILE = 65535

# The ledger is written last, so it must be opened first: then the others have all its epochs.
TABLES = ["ledger", "clicks", "dead_letters", "clicks_by_minute"]

# The queries are files of the repository, beside which this one lies.
QUERIES = Path(__file__).resolve().parents[2] / "crates" / "reconcile" / "src" / "recount" / "sql"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", required=True, help="the folder `lake` of the data directory, or its URL")
    parser.add_argument("--findings", required=True, type=Path, help="the file to write")
    parser.add_argument("--from", dest="begin", help="the first minute (RFC 3339)")
    parser.add_argument("--to", dest="end", help="the minute after the last one (RFC 3339)")
    parser.add_argument("--queries", type=Path, default=QUERIES, help="the folder of the SQL files")
    return parser.parse_args()


def epochs(ledger: DataFrame) -> dict[int, tuple[int, object]]:
    """The last epoch of each partition in all tables, and up to where its minutes are final. The ledger is written last."""
    of_partitions = ledger.where("input IS NULL AND event_hour IS NULL")
    newest = of_partitions.groupBy("partition").agg(F.max_by(F.struct("epoch", "final_until"), "epoch").alias("last"))
    return {row.partition: (row.last.epoch, row.last.final_until) for row in newest.collect()}


def kept_from(spark: SparkSession, path: str) -> datetime | None:
    """The time from which a table has all its rows; older ones were dropped. It is a transaction of the table's log."""
    log, schema = f"{path}/_delta_log", "txn STRUCT<appId STRING, version BIGINT>"
    files = spark.read.format("binaryFile").load(log).select("path").collect()
    commits = [row.path for row in files if row.path.endswith(".json")]
    checkpoints = [row.path for row in files if row.path.endswith(".parquet")]
    logged = spark.read.schema(schema).json(commits)
    if checkpoints:
        logged = logged.unionByName(spark.read.schema(schema).parquet(*checkpoints))
    newest = logged.where("txn.appId = 'adtally-kept-from'").agg(F.max("txn.version").alias("ms")).first().ms
    return None if newest is None else datetime.fromtimestamp(newest / 1000)


def cut(table: DataFrame, held: dict[int, tuple[int, object]]) -> DataFrame:
    """The rows of the epochs that all tables have."""
    within = F.lit(False)
    for partition, (epoch, _) in held.items():
        within = within | ((F.col("partition") == partition) & (F.col("epoch") <= epoch))
    return table.where(within)


def between(table: DataFrame, column: str, begin: object, end: object) -> DataFrame:
    if begin is not None:
        table = table.where(F.col(column) >= F.lit(begin))
    return table.where(F.col(column) < F.lit(end))


def as_json(row: dict[str, object]) -> str:
    def text(value: object) -> object:
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if hasattr(value, "strftime") else value

    return json.dumps({name: text(value) for name, value in row.items() if value is not None}, ensure_ascii=False)


def main() -> int:
    args = arguments()
    # PySpark hands times over in the zone of this process.
    os.environ["TZ"] = "UTC"
    time.tzset()
    spark = SparkSession.builder.appName("adtally-reconcile").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    tables = {name: spark.read.format("delta").load(f"{args.lake}/{name}") for name in TABLES}
    held = epochs(tables["ledger"])
    finals = [final for partition, (_, final) in held.items() if partition != RECONCILE]
    if not finals or any(final is None for final in finals):
        print("no minute is final in every source partition", file=sys.stderr)
        return 1
    # A minute that is final in part is not recounted.
    end = min(finals).replace(second=0, microsecond=0)
    if args.end:
        end = min(end, spark.sql(f"SELECT TIMESTAMP '{args.end}' AS t").first().t)
    begins = [kept_from(spark, f"{args.lake}/{name}") for name in ["clicks", "clicks_by_minute", "dead_letters"]]
    if args.begin:
        begins.append(spark.sql(f"SELECT TIMESTAMP '{args.begin}' AS t").first().t)
    begin = max((begin for begin in begins if begin is not None), default=None)
    whole = {name: cut(table, held) for name, table in tables.items()}
    clicks = between(whole["clicks"], "click_timestamp", begin, end)
    letters = between(whole["dead_letters"], "click_timestamp", begin, end)
    counts = between(whole["clicks_by_minute"], "minute", begin, end)

    def query(name: str, **views: DataFrame) -> DataFrame:
        for view, rows in views.items():
            rows.createOrReplaceTempView(view)
        return spark.sql((args.queries / f"{name}.sql").read_text(encoding="utf-8"))

    # Damage is found by whole hours.
    hour = F.expr("INTERVAL 1 HOUR")
    last = F.date_trunc("hour", F.lit(end) + hour - F.expr("INTERVAL 1 MICROSECOND"))
    stored = whole["clicks"].where(F.col("click_timestamp") < last)
    ledger = whole["ledger"].where(F.col("event_hour").isNull() | (F.col("event_hour") < last))
    if begin is not None:
        first = F.date_trunc("hour", F.lit(begin))
        stored = stored.where(F.col("click_timestamp") >= first)
        ledger = ledger.where(F.col("event_hour").isNull() | (F.col("event_hour") >= first))
    damaged = query("damaged", clicks=stored, ledger=ledger).collect()
    hours = sorted({row.event_hour for row in damaged})

    def sound(table: DataFrame, column: str) -> DataFrame:
        return table.where(~F.date_trunc("hour", F.col(column)).isin(hours)) if hours else table

    clicks, letters = sound(clicks, "click_timestamp"), sound(letters, "click_timestamp")
    counts = sound(counts, "minute")
    signed = clicks.select(
        F.date_trunc("minute", "click_timestamp").alias("span"),
        "ad_id",
        "country",
        F.coalesce(F.col("sign"), F.lit(1)).cast("bigint").alias("clicks"),
    )
    counted = counts.select(F.col("minute").alias("span"), "ad_id", "country", "clicks")
    with args.findings.open("w", encoding="utf-8") as findings:

        def write(cause: str | None, rows: DataFrame) -> int:
            number = 0
            for row in rows.toLocalIterator():
                of = row.asDict()
                of["cause"] = cause or of.pop("verdict")
                findings.write(as_json(of) + "\n")
                number += 1
            return number

        found = {
            "recovered": write(None, query("recovered", clicks=clicks, dead_letters=letters)),
            "stored_twice": write("stored_twice", query("stored_twice", clicks=clicks)),
            "count": write("count", query("counts", stored=signed, counted=counted)),
        }
        for row in damaged:
            findings.write(as_json({"cause": "damaged", **row.asDict()}) + "\n")
        found["damaged"] = len(damaged)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
