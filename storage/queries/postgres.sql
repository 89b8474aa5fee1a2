-- What must differ on Postgres. Each override says why.

-- fragment: now_us
-- The database's time in microseconds, also inside a long transaction.
(extract(epoch FROM clock_timestamp()) * 1000000)::bigint

-- fragment: greatest
-- The greater of two values.
greatest

-- fragment: least
-- The lesser of two values.
least

-- fragment: for_update
-- Locks the selected row for the rest of the transaction.
FOR UPDATE

-- fragment: data_bytes
-- The size of an event's data.
octet_length(data)

-- fragment: add_messages
-- Adds messages if `task` did its part; the same message is skipped, another one at its position refused by the key.
INSERT INTO messages (session_id, position, turn_id, round, role, body, created_us)
SELECT n.* FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
    AS n (session_id, position, turn_id, round, role, body, created_us)
WHERE EXISTS (SELECT 1 FROM task) AND NOT EXISTS (SELECT 1 FROM messages m
    WHERE m.session_id = n.session_id AND m.position = n.position AND m.turn_id = n.turn_id AND m.body = n.body)
RETURNING position

-- fragment: add_events
-- Adds events if `task` did its part; what is there already is left alone.
INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
SELECT e.* FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::bigint[]) AS e (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
WHERE EXISTS (SELECT 1 FROM task)
ON CONFLICT (session_id, seq) DO NOTHING

-- fragment: touch
-- Counts the messages that `said` added and notes when the session changed.
UPDATE sessions SET updated_us = greatest(updated_us, $1), message_count = message_count + (SELECT count(*) FROM said)
WHERE sessions.session_id = (SELECT session_id FROM fenced) AND EXISTS (SELECT 1 FROM task)

-- name: take_lock
-- Waits until no other transaction holds the lock with this number; it ends with the transaction.
-- why: a named lock is an advisory lock here.
SELECT pg_advisory_xact_lock($1) AS locked

-- name: delete_events
-- Retention: removes old events of some kinds, a bounded number of rows at a time.
-- why: the kinds are an array, and rows are found by ctid.
DELETE FROM events WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM events WHERE kind = ANY ($1::text[]) AND created_us < $2 LIMIT $3))

-- name: insert_messages
-- Adds messages; the very same message is skipped, another one at its position is refused by the key.
-- why: one statement takes all rows as columns, instead of one statement per row.
INSERT INTO messages (session_id, position, turn_id, round, role, body, created_us)
SELECT n.* FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bigint[])
    AS n (session_id, position, turn_id, round, role, body, created_us)
WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.session_id = n.session_id AND m.position = n.position
    AND m.turn_id = n.turn_id AND m.body = n.body)

-- name: insert_events
-- Adds events; what is there already is left alone.
-- why: one statement takes all rows as columns, instead of one statement per row.
INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::bigint[])
ON CONFLICT (session_id, seq) DO NOTHING

-- name: append_events
-- Adds events of several sessions whose fences hold, and names those sessions.
-- why: one round trip for the hottest write; the fences are locked in order, so that two appends cannot deadlock
-- and a new owner waits for this statement.
WITH fenced AS (
    SELECT s.session_id FROM sessions s
    JOIN unnest($1::text[], $2::bigint[]) AS f (session_id, epoch) ON f.session_id = s.session_id
    WHERE s.epoch = f.epoch AND s.owner_id IS NOT NULL ORDER BY s.session_id FOR SHARE OF s
), added AS (
    INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
    SELECT e.* FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[], $9::text[],
        $10::bigint[]) AS e (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
    WHERE e.session_id IN (SELECT session_id FROM fenced)
    ON CONFLICT (session_id, seq) DO NOTHING
)
SELECT session_id FROM fenced

-- name: accept_turn
-- Records a turn with its first messages and events under a fence; says whether the fence held and the turn is new.
-- why: one round trip instead of seven on the way of every turn; each part runs only if the one before it did.
WITH fenced AS (
    SELECT session_id FROM sessions WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL FOR UPDATE
), task AS (
    INSERT INTO tasks (turn_id, session_id, user_id, status, attempt, request, idempotency_key, created_us,
        started_us, crashes, cancel_requested, last_round)
    SELECT $3::text, $1, $4::text, $5::text, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint, 0, FALSE, 0
    WHERE EXISTS (SELECT 1 FROM fenced)
    ON CONFLICT DO NOTHING RETURNING turn_id
), said AS (
    {add_messages:$11}
), told AS (
    {add_events:$18}
), touched AS (
    {touch:$9}
)
SELECT EXISTS (SELECT 1 FROM fenced) AS fenced, EXISTS (SELECT 1 FROM task) AS done

-- name: commit_round
-- Records a round's messages and events under a fence; says whether the fence held and the attempt is running.
-- why: one round trip instead of seven on the way of every turn; each part runs only if the one before it did.
WITH fenced AS (
    SELECT session_id FROM sessions WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL FOR UPDATE
), task AS (
    UPDATE tasks SET last_round = greatest(last_round, $5)
    WHERE turn_id = $3 AND session_id = $1 AND attempt = $4 AND status = 'running'
        AND EXISTS (SELECT 1 FROM fenced)
    RETURNING turn_id
), said AS (
    {add_messages:$7}
), told AS (
    {add_events:$14}
), touched AS (
    {touch:$6}
)
SELECT EXISTS (SELECT 1 FROM fenced) AS fenced, EXISTS (SELECT 1 FROM task) AS done

-- name: finish_turn
-- Completes a turn with its last messages and events under a fence; says whether the fence held and it completed.
-- why: one round trip instead of seven on the way of every turn; each part runs only if the one before it did.
WITH fenced AS (
    SELECT session_id FROM sessions WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL FOR UPDATE
), task AS (
    UPDATE tasks SET status = $5, answer = $6, error = $7, usage = $8, stop_reason = $9, finished_us = $10
    WHERE turn_id = $3 AND session_id = $1 AND attempt = $4 AND status IN ('queued', 'running')
        AND NOT (cancel_requested AND $5 = 'succeeded') AND EXISTS (SELECT 1 FROM fenced)
    RETURNING turn_id
), said AS (
    {add_messages:$11}
), told AS (
    {add_events:$18}
), touched AS (
    {touch:$10}
)
SELECT EXISTS (SELECT 1 FROM fenced) AS fenced, EXISTS (SELECT 1 FROM task) AS done
