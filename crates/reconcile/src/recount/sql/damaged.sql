-- Hours in which `clicks` is not whole: an epoch's rows are not those that the ledger says it stored.
--
-- Views, of whole hours: `clicks`, and `ledger`, which also has its rows without an hour. `xxhash64` is the function of
-- Spark SQL.
WITH unproven AS (
    -- Epochs of earlier versions, of which the ledger has no hours, or hours without a sum.
    SELECT DISTINCT partition, epoch
    FROM ledger
    WHERE (input IS NULL AND newest_click IS NULL) OR (event_hour IS NOT NULL AND row_hash_sum IS NULL)
),
stored AS (
    SELECT
        DATE_TRUNC('hour', click_timestamp) AS event_hour,
        partition,
        epoch,
        COUNT(*) AS clicks,
        SUM(
            xxhash64(
                CAST(COALESCE(sign, 1) AS INT), input, position, click_timestamp, ad_id, country, user_id, ip, click_id
            ) & 4294967295
        ) AS row_hash_sum
    FROM clicks
    WHERE NOT EXISTS (
        SELECT 1
        FROM unproven
        WHERE clicks.partition = unproven.partition AND clicks.epoch = unproven.epoch
    )
    GROUP BY DATE_TRUNC('hour', click_timestamp), partition, epoch
),
both_sides AS (
    SELECT event_hour, partition, epoch, clicks, row_hash_sum FROM stored
    UNION ALL
    SELECT event_hour, partition, epoch, -clicks AS clicks, -row_hash_sum AS row_hash_sum
    FROM ledger
    WHERE
        event_hour IS NOT NULL
        AND NOT EXISTS (
            SELECT 1
            FROM unproven
            WHERE ledger.partition = unproven.partition AND ledger.epoch = unproven.epoch
        )
)
SELECT
    event_hour,
    partition,
    epoch,
    SUM(clicks) AS clicks,
    SUM(row_hash_sum) AS row_hash_sum
FROM both_sides
GROUP BY event_hour, partition, epoch
HAVING SUM(clicks) <> 0 OR SUM(row_hash_sum) <> 0
ORDER BY event_hour, partition, epoch
