"""DuckDB: parse, deduplicate, write the raw clicks as Parquet, count them by minute, ad and country.

In the generated log a country may be in lower case, empty, missing or XX, which is nobody's.
Arguments: the log, a folder for what is written. Prints the seconds from the first query to the end of the last.
"""

import sys
import time

import duckdb

LOG, OUT = sys.argv[1:3]
COLUMNS = "{click_timestamp: 'BIGINT', ad_id: 'BIGINT', user_id: 'VARCHAR', ip: 'VARCHAR', country: 'VARCHAR'}"

connection = duckdb.connect()
connection.execute("SET preserve_insertion_order = false")
began = time.perf_counter()
connection.execute(f"""
    COPY (
        SELECT click_timestamp, ad_id, user_id, ip,
            upper(coalesce(nullif(nullif(any_value(country), ''), 'XX'), 'ZZ')) AS country
        FROM read_json('{LOG}', format = 'newline_delimited', columns = {COLUMNS})
        GROUP BY click_timestamp, ad_id, user_id, ip
    ) TO '{OUT}/clicks.parquet' (FORMAT parquet, COMPRESSION zstd)
""")
connection.execute(f"""
    COPY (
        SELECT click_timestamp // 60000 AS minute, ad_id, country, count(*) AS clicks
        FROM '{OUT}/clicks.parquet'
        GROUP BY ALL
    ) TO '{OUT}/counts.parquet' (FORMAT parquet, COMPRESSION zstd)
""")
print(time.perf_counter() - began)
