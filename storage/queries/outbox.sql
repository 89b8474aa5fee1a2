-- The outbox, one text for both databases (see shared.sql for how it is written). Many rows come as one JSON list.

-- fragment: outbox_item
-- The columns of an OutboxItem.
delivery_id, channel, account, peer, route, seq, state, ready, due_us, body, turn_id, attempt, failures, owner_id,
    claimed_us, first_us, code, created_us, finished_us

-- name: known_delivery
-- Whether a delivery is recorded.
SELECT EXISTS (SELECT 1 FROM outbox WHERE delivery_id = $1) AS found

-- name: extend_line
-- One more in a line, whose row is locked from here on: its place, and how many of the line are not finished.
INSERT INTO outbox_lines (line, last_seq, open, used_us) VALUES ($1, 1, 1, $2)
ON CONFLICT (line) DO UPDATE SET last_seq = outbox_lines.last_seq + 1, open = outbox_lines.open + 1,
    used_us = {greatest}(outbox_lines.used_us, excluded.used_us)
RETURNING last_seq, open

-- name: post_item
-- Records a delivery at its place in its line.
INSERT INTO outbox (delivery_id, channel, account, peer, route, line, seq, state, ready, due_us, body, turn_id, attempt,
    failures, created_us)
VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', $8, $9, $10, $11, 0, 0, $9)

-- name: ready_routes
-- The routes with something ready, each with when its next may be sent: one look into the index for each route.
SELECT found.route, (SELECT min(due_us) FROM outbox WHERE ready AND route = found.route) AS due_us
FROM (
    WITH RECURSIVE routes (route) AS (
        SELECT min(route) FROM outbox WHERE ready
        UNION ALL
        SELECT (SELECT min(n.route) FROM outbox n WHERE n.ready AND n.route > routes.route) FROM routes
        WHERE routes.route IS NOT NULL
    )
    SELECT route FROM routes WHERE route IS NOT NULL
) AS found

-- name: claim_route
-- Takes what is due of one route, at most so many, and makes each the caller's attempt.
UPDATE outbox SET state = 'sending', ready = FALSE, attempt = attempt + 1, owner_id = $1, claimed_us = $3,
    first_us = coalesce(first_us, $3)
WHERE delivery_id IN (
    SELECT delivery_id FROM outbox WHERE ready AND route = $2 AND due_us <= $3 ORDER BY due_us, delivery_id LIMIT $4)
RETURNING {outbox_item}

-- name: lock_recorded_lines
-- Holds the lines that attempts leave for good, in order, so that two of these cannot wait for each other.
SELECT l.line FROM outbox_lines l WHERE l.line IN (
    SELECT o.line FROM {results:$1} r JOIN outbox o ON o.delivery_id = r.delivery_id WHERE r.state <> 'pending')
ORDER BY l.line {for_update}

-- name: record_results
-- Ends attempts, as far as they are still under way: a later attempt, or another end, is a fence.
UPDATE outbox SET state = r.state, ready = (r.state = 'pending'), due_us = r.due_us, failures = failures + r.counted,
    code = r.code, owner_id = NULL, finished_us = CASE r.state WHEN 'pending' THEN NULL ELSE r.finished_us END
FROM {results:$1} r
WHERE outbox.delivery_id = r.delivery_id AND outbox.attempt = r.attempt AND outbox.state = 'sending'
RETURNING outbox.delivery_id, outbox.line, outbox.state

-- name: record_sends
-- Keeps what became of attempts.
INSERT INTO outbox_attempts (delivery_id, attempt, outcome, status, code, detail, started_us, finished_us)
SELECT r.delivery_id, r.attempt, r.outcome, r.status, r.code, r.detail, o.claimed_us, r.finished_us
FROM {results:$1} r JOIN outbox o ON o.delivery_id = r.delivery_id
WHERE r.outcome IS NOT NULL
ON CONFLICT (delivery_id, attempt) DO NOTHING

-- name: known_send
-- Whether this very end of an attempt is recorded.
SELECT EXISTS (SELECT 1 FROM outbox_attempts WHERE delivery_id = $1 AND attempt = $2 AND outcome = $3
    AND finished_us = $4) AS found

-- name: shorten_lines
-- So many of each line are finished.
UPDATE outbox_lines SET open = open - gone.items
FROM (SELECT g.value AS line, count(*) AS items FROM {texts:$1} g GROUP BY g.value) AS gone
WHERE outbox_lines.line = gone.line

-- name: ready_heads
-- The first of each line is ready, unless it is being sent. The lines' rows are held.
UPDATE outbox SET ready = TRUE WHERE state = 'pending' AND NOT ready AND delivery_id IN (
    SELECT (SELECT n.delivery_id FROM outbox n WHERE n.line = g.value AND n.state IN ('pending', 'sending')
        ORDER BY n.seq LIMIT 1)
    FROM {texts:$1} g)

-- name: abandoned_items
-- What is being sent by nobody who lives, or by the asker.
SELECT {outbox_item} FROM outbox
WHERE state = 'sending' AND (owner_id = $1
    OR NOT EXISTS (SELECT 1 FROM owners w WHERE w.owner_id = outbox.owner_id AND w.lease_until_us > {now_us}))
ORDER BY claimed_us LIMIT $2

-- name: get_item
-- One delivery.
SELECT {outbox_item} FROM outbox WHERE delivery_id = $1

-- name: item_line
-- The line of a delivery.
SELECT line FROM outbox WHERE delivery_id = $1

-- name: lock_line
-- Holds one line.
SELECT line FROM outbox_lines WHERE line = $1 {for_update}

-- name: list_sends
-- The attempts at a delivery.
SELECT attempt, outcome, status, code, detail, started_us, finished_us FROM outbox_attempts WHERE delivery_id = $1
ORDER BY attempt

-- name: list_items
-- A page of deliveries in any state, newest first, before a cursor.
SELECT {outbox_item} FROM outbox
WHERE (CAST($1 AS TEXT) IS NULL OR channel = $1) AND (CAST($2 AS TEXT) IS NULL OR account = $2)
    AND (created_us, delivery_id || '') < ($3, $4)
ORDER BY created_us DESC, delivery_id || '' DESC LIMIT $5

-- name: list_items_in_state
-- A page of deliveries in one state, newest first, before a cursor.
SELECT {outbox_item} FROM outbox
WHERE state = $1 AND (CAST($2 AS TEXT) IS NULL OR channel = $2) AND (CAST($3 AS TEXT) IS NULL OR account = $3)
    AND (created_us, delivery_id || '') < ($4, $5)
ORDER BY created_us DESC, delivery_id || '' DESC LIMIT $6

-- name: reopen_item
-- Puts a finished delivery at the end of its line, with a fresh budget; its attempts go on counting.
UPDATE outbox SET state = 'pending', ready = $2, seq = $3, due_us = $4, failures = 0, first_us = NULL, finished_us = NULL
WHERE delivery_id = $1 AND state IN ('sent', 'dead', 'dropped')

-- name: hasten_item
-- A delivery that waits for its next attempt need not wait any longer.
UPDATE outbox SET due_us = {least}(due_us, $2) WHERE delivery_id = $1 AND state = 'pending'

-- name: drop_waiting
-- A delivery that waits is not to be sent any more. Its line is held.
UPDATE outbox SET state = 'dropped', ready = FALSE, finished_us = $2 WHERE delivery_id = $1 AND state = 'pending'

-- name: drop_dead
-- A dead letter that nobody needs.
UPDATE outbox SET state = 'dropped', finished_us = $2 WHERE delivery_id = $1 AND state = 'dead'

-- name: outbox_states
-- How many deliveries of each channel are in each state that needs somebody, and since when the oldest of them.
SELECT channel, state, count(*) AS items, min(created_us) AS oldest_us FROM outbox
WHERE state IN ('pending', 'sending', 'dead') GROUP BY channel, state

-- name: finished_items
-- Deliveries that are over, and have been for some time.
SELECT delivery_id FROM outbox WHERE state IN ('sent', 'dropped') AND finished_us < $1 ORDER BY finished_us LIMIT $2

-- name: delete_sends
-- Removes the attempts of deliveries that are over.
DELETE FROM outbox_attempts WHERE delivery_id IN (
    SELECT o.delivery_id FROM {texts:$1} g JOIN outbox o ON o.delivery_id = g.value
    WHERE o.state IN ('sent', 'dropped') AND o.finished_us < $2)

-- name: delete_items
-- Removes deliveries that are over, unless one was brought back meanwhile.
DELETE FROM outbox WHERE delivery_id IN (SELECT g.value FROM {texts:$1} g)
    AND state IN ('sent', 'dropped') AND finished_us < $2

-- name: delete_unused_lines
-- Forgets lines in which nothing has been for some time.
DELETE FROM outbox_lines WHERE line IN (SELECT line FROM outbox_lines WHERE open = 0 AND used_us < $1 LIMIT $2)
    AND open = 0
