-- Counts that differ from the stored clicks: what is missing, or too much if it is negative.
--
-- Views, of the minutes, hours or days to compare: `stored`, a row for each row of `clicks`, whose `clicks` is the sign; and
-- `counted`, the rows of the counts. Both have the columns `span`, the minute, hour or day, `ad_id`, `country` and `clicks`.
WITH both_sides AS (
    SELECT span, ad_id, country, clicks FROM stored
    UNION ALL
    SELECT span, ad_id, country, -clicks AS clicks FROM counted
)
SELECT span, ad_id, country, SUM(clicks) AS clicks
FROM both_sides
GROUP BY span, ad_id, country
HAVING SUM(clicks) <> 0
ORDER BY span, ad_id, country
