-- Hours or days whose counts differ from the stored clicks, by their sum and by a sum that is weighted with a hash. This is
-- much cheaper than to compare each count. Counts that differ have equal sums with a chance of one in 268 million.
--
-- Views: those of `counts.sql`. `xxhash64` is the function of Spark SQL.
WITH both_sides AS (
    SELECT span, clicks, xxhash64(ad_id, country) & 268435455 AS weight FROM stored
    UNION ALL
    SELECT span, -clicks AS clicks, xxhash64(ad_id, country) & 268435455 AS weight FROM counted
)
SELECT span, SUM(CASE WHEN clicks > 0 THEN clicks ELSE 0 END) AS rows_about
FROM both_sides
GROUP BY span
HAVING SUM(clicks) <> 0 OR SUM(clicks * weight) <> 0
ORDER BY span
