"""ClickHouse, embedded: parse, deduplicate, write the raw clicks as Parquet, count them by minute, ad and country.

In the generated log a country may be in lower case, empty, missing or XX, which is nobody's.
Arguments: the log, a folder for what is written. Prints the seconds from the first query to the end of the last.
"""

import sys
import time

from chdb import session

LOG, OUT = sys.argv[1:3]
COLUMNS = "click_timestamp Int64, ad_id Int64, user_id String, ip String, country String"

connection = session.Session(f"{OUT}/session")
connection.query("SET output_format_parquet_compression_method = 'zstd'")
began = time.perf_counter()
connection.query(f"""
    INSERT INTO FUNCTION file('{OUT}/clicks.parquet', 'Parquet', '{COLUMNS}')
    SELECT click_timestamp, ad_id, user_id, ip, if(any(country) IN ('', 'XX'), 'ZZ', upper(any(country)))
    FROM file('{LOG}', 'JSONEachRow', '{COLUMNS}')
    GROUP BY click_timestamp, ad_id, user_id, ip
""")
connection.query(f"""
    INSERT INTO FUNCTION file('{OUT}/counts.parquet', 'Parquet', 'minute Int64, ad_id Int64, country String, clicks Int64')
    SELECT intDiv(click_timestamp, 60000), ad_id, country, count()
    FROM file('{OUT}/clicks.parquet', 'Parquet', '{COLUMNS}')
    GROUP BY 1, 2, 3
""")
print(time.perf_counter() - began)
