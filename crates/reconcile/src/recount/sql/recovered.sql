-- Late and future lines whose click is in no minute: each click once, as it was first read.
--
-- Views, of the minutes to recount: `clicks`, `dead_letters`.
-- A line was slightly ahead of the clock if it was at most 15 minutes ahead when it was read. Others are for review.
WITH letters AS (
    SELECT
        *,
        COALESCE(click_id, '') AS known_by,
        CASE WHEN click_id IS NULL THEN user_id ELSE '' END AS known_user,
        CASE WHEN click_id IS NULL THEN ip ELSE '' END AS known_ip
    FROM dead_letters
    WHERE
        ad_id IS NOT NULL
        AND (
            verdict = 'late'
            OR (verdict = 'future' AND click_timestamp <= received_at + INTERVAL '15' MINUTE)
        )
),
firsts AS (
    SELECT
        *,
        ROW_NUMBER() OVER (
            PARTITION BY click_timestamp, ad_id, known_by, known_user, known_ip
            ORDER BY partition, epoch, position, input
        ) AS place
    FROM letters
),
stored AS (
    SELECT
        click_timestamp,
        ad_id,
        COALESCE(click_id, '') AS known_by,
        CASE WHEN click_id IS NULL THEN user_id ELSE '' END AS known_user,
        CASE WHEN click_id IS NULL THEN ip ELSE '' END AS known_ip
    FROM clicks
)
SELECT
    firsts.verdict,
    firsts.click_timestamp,
    firsts.ad_id,
    firsts.user_id,
    firsts.ip,
    firsts.country,
    firsts.click_id,
    firsts.input,
    firsts.position
FROM firsts
WHERE
    firsts.place = 1
    AND NOT EXISTS (
        SELECT 1
        FROM stored
        WHERE
            firsts.click_timestamp = stored.click_timestamp
            AND firsts.ad_id = stored.ad_id
            AND firsts.known_by = stored.known_by
            AND firsts.known_user = stored.known_user
            AND firsts.known_ip = stored.known_ip
    )
ORDER BY firsts.click_timestamp, firsts.ad_id, firsts.input, firsts.position
