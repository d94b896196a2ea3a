-- Sums of the hours or days of some counts: of their clicks, and of their clicks weighted with a hash. Counts are compared with the
-- stored clicks by these sums, which is much cheaper than to compare each count. Counts that differ have equal sums with a
-- chance of one in 268 million.
--
-- View: `counts`, with the columns `span`, the hour or day, `ad_id`, `country` and `clicks`. `xxhash64` is the function of Spark
-- SQL.
SELECT span, SUM(clicks) AS clicks, SUM(clicks * (xxhash64(ad_id, country) & 268435455)) AS weighted
FROM counts
GROUP BY span
ORDER BY span
