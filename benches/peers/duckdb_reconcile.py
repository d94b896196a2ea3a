"""DuckDB: the queries of `adtally reconcile` over the same lake, in slices of the same size and with the same memory.

Its hash of rows is another one, so every hour seems damaged to it; the work is the same.
Arguments: the folder of the lake, the folder of the queries. Prints the seconds from the first query to the end of the last.
"""

import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import duckdb

LAKE, QUERIES = Path(sys.argv[1]), Path(sys.argv[2])

# As in `recount/slices.rs`.
ROWS_MAX = 4_000_000

TIMES = {"clicks": "click_timestamp", "dead_letters": "click_timestamp", "clicks_by_minute": "minute"}


def files(table: str) -> list[str]:
    """The files of a Delta table, by its log."""
    held: dict[str, None] = {}
    for entry in sorted((LAKE / table / "_delta_log").glob("*.json")):
        for line in entry.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                held[action["add"]["path"]] = None
            if "remove" in action:
                held.pop(action["remove"]["path"], None)
    return [str(LAKE / table / path.replace("%3A", ":")) for path in held]


connection = duckdb.connect()
connection.execute("SET threads = 2; SET memory_limit = '1GB'; SET preserve_insertion_order = false; SET TimeZone = 'UTC'")
connection.execute("""
    CREATE MACRO xxhash64(a, b) AS hash(a, b) & 9223372036854775807,
        (a, b, c, d, e, f, g, h, i) AS hash(a, b, c, d, e, f, g, h, i) & 9223372036854775807
""")
for table in [*TIMES, "clicks_by_hour", "clicks_by_day", "ledger"]:
    paths = files(table)
    if paths:
        connection.execute(f"CREATE VIEW all_{table} AS SELECT * FROM read_parquet({paths}, hive_partitioning = false)")


def view(name: str, rows: str) -> None:
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {rows}")


def run(query: str) -> int:
    return len(connection.execute((QUERIES / f"{query}.sql").read_text()).fetchall())


def part(table: str, begin: datetime, end: datetime) -> str:
    time_of = TIMES[table]
    return f"SELECT * FROM all_{table} WHERE {time_of} >= '{begin}+00' AND {time_of} < '{end}+00'"


def signed(unit: str, rows: str) -> str:
    return f"SELECT date_trunc('{unit}', click_timestamp) AS span, ad_id, country, coalesce(sign, 1)::BIGINT AS clicks FROM ({rows})"


began = time.perf_counter()
hours = connection.execute(
    "SELECT date_trunc('hour', click_timestamp)::TIMESTAMP AS hour, count(*) FROM all_clicks GROUP BY 1 ORDER BY 1"
).fetchall()
begin, end = hours[0][0], hours[-1][0] + timedelta(hours=1)
view("clicks", "SELECT * FROM all_clicks")
view("ledger", "SELECT * FROM all_ledger")
found = {"damaged": run("damaged")}
slices: list[tuple[datetime, datetime]] = []
at, rows = begin, 0
for hour, of_hour in hours:
    if rows + of_hour > ROWS_MAX and hour > at:
        slices.append((at, hour))
        at, rows = hour, 0
    rows += of_hour
slices.append((at, end))
for first, last in slices:
    for table in TIMES:
        view(table, part(table, first, last))
    view("stored", signed("minute", "FROM clicks"))
    view("counted", "SELECT minute AS span, ad_id, country, clicks FROM clicks_by_minute")
    for query in ["recovered", "stored_twice", "counts"]:
        found[query] = found.get(query, 0) + run(query)
view("clicks", part("clicks", begin, end))
for name, rows in {
    "stored": signed("hour", "FROM clicks"),
    "hours": "SELECT hour AS span, ad_id, country, clicks FROM all_clicks_by_hour",
    "days": "SELECT date_trunc('day', hour) AS span, ad_id, country, clicks FROM all_clicks_by_hour",
}.items():
    view("counts", rows)
    found[name] = run("sums")
print(time.perf_counter() - began, found, len(slices))
