-- Rows of `clicks` that a run of corrections made and that are not reverted yet. Each is reverted by a row with the opposite
-- sign.
--
-- Views, of the minutes to revert: `made`, the rows of one sign that the run made, and `undone`, the rows of the other sign
-- that already revert it.
SELECT click_timestamp, ad_id, user_id, ip, country, click_id, input, position
FROM made
WHERE NOT EXISTS (
    SELECT 1
    FROM undone
    WHERE
        made.click_timestamp = undone.click_timestamp
        AND made.ad_id = undone.ad_id
        AND made.user_id = undone.user_id
        AND made.ip = undone.ip
        AND COALESCE(made.click_id, '') = COALESCE(undone.click_id, '')
        AND made.input = undone.input
        AND made.position = undone.position
)
