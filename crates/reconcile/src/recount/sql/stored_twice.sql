-- Rows of `clicks` to reverse: the copies of a click that was stored more than once.
--
-- View, of the minutes to recount: `clicks`.
-- Of a click's rows, the least by partition, epoch and position stays. A line that was reversed once is not reversed
-- again, so that a reverted correction stays reverted.
WITH repeated AS (
    -- A cheap selection by time and ad: few clicks of an ad share a millisecond.
    SELECT click_timestamp, ad_id
    FROM clicks
    GROUP BY click_timestamp, ad_id
    HAVING SUM(COALESCE(sign, 1)) > 1
),
candidates AS (
    SELECT
        clicks.*,
        COALESCE(clicks.click_id, '') AS known_by,
        CASE WHEN clicks.click_id IS NULL THEN clicks.user_id ELSE '' END AS known_user,
        CASE WHEN clicks.click_id IS NULL THEN clicks.ip ELSE '' END AS known_ip
    FROM clicks
    INNER JOIN repeated
        ON clicks.click_timestamp = repeated.click_timestamp AND clicks.ad_id = repeated.ad_id
),
lines AS (
    SELECT
        *,
        SUM(COALESCE(sign, 1)) OVER (
            PARTITION BY click_timestamp, ad_id, known_by, known_user, known_ip, input, position
        ) AS net_of_line,
        MIN(COALESCE(sign, 1)) OVER (
            PARTITION BY click_timestamp, ad_id, known_by, known_user, known_ip, input, position
        ) AS least_sign,
        ROW_NUMBER() OVER (
            PARTITION BY click_timestamp, ad_id, known_by, known_user, known_ip, input, position, sign
            ORDER BY partition, epoch
        ) AS place_in_line
    FROM candidates
),
standing AS (
    -- The rows that still count: of each line, as many as are not reversed.
    SELECT * FROM lines WHERE COALESCE(sign, 1) = 1 AND place_in_line <= net_of_line
),
ranked AS (
    SELECT
        *,
        ROW_NUMBER() OVER (
            PARTITION BY click_timestamp, ad_id, known_by, known_user, known_ip
            ORDER BY partition, epoch, position, input
        ) AS place
    FROM standing
)
SELECT click_timestamp, ad_id, user_id, ip, country, click_id, input, position
FROM ranked
WHERE place > 1 AND least_sign = 1
ORDER BY click_timestamp, ad_id, input, position
