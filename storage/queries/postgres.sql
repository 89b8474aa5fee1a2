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

-- fragment: outbox_items
-- Deliveries to record, as one JSON list.
(SELECT * FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS x (delivery_id text, channel text, account text, peer text,
    route text, line text, body text, turn_id text, created_us bigint, place bigint))

-- fragment: post_outbox
-- Records the deliveries of `posting`, each at its place in its line; the first of an empty line is ready.
extended AS (
    INSERT INTO outbox_lines AS l (line, last_seq, open, used_us)
    SELECT line, count(*), count(*), max(created_us) FROM posting GROUP BY line ORDER BY line
    ON CONFLICT (line) DO UPDATE SET last_seq = l.last_seq + excluded.last_seq, open = l.open + excluded.open,
        used_us = greatest(l.used_us, excluded.used_us)
    RETURNING line, last_seq, open
), posted AS (
    INSERT INTO outbox (delivery_id, channel, account, peer, route, line, seq, state, ready, due_us, body, turn_id,
        attempt, failures, created_us)
    SELECT p.delivery_id, p.channel, p.account, p.peer, p.route, p.line, x.last_seq - p.items + p.number, 'pending',
        x.open = p.items AND p.number = 1, p.created_us, p.body, p.turn_id, 0, 0, p.created_us
    FROM (SELECT g.*, count(*) OVER (PARTITION BY g.line) AS items,
            row_number() OVER (PARTITION BY g.line ORDER BY g.place) AS number FROM posting g) AS p
        JOIN extended x ON x.line = p.line
    RETURNING delivery_id
)

-- fragment: results
-- What became of attempts, as one JSON list.
(SELECT * FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS x (delivery_id text, attempt bigint, state text, due_us bigint,
    counted bigint, outcome text, status bigint, code text, detail text, finished_us bigint))

-- fragment: texts
-- Texts, as one JSON list.
(SELECT value FROM jsonb_array_elements_text(CAST($1 AS jsonb)))

-- name: take_lock
-- Waits until no other transaction holds the lock with this number; it ends with the transaction.
-- why: a named lock is an advisory lock here.
SELECT pg_advisory_xact_lock($1) AS locked

-- name: notify
-- Tells whoever listens on a channel; nothing else is in its transaction, for only one at a time can commit.
-- why: SQLite has nothing of the kind.
SELECT pg_notify($1, '') AS sent

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
    WHERE s.session_id = ANY ($1) AND s.epoch = f.epoch AND s.owner_id || '' IS NOT NULL
    ORDER BY s.session_id FOR SHARE OF s
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
        started_us, attempt_started_us, crashes, cancel_requested, last_round)
    SELECT $3::text, $1, $4::text, $5::text, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint, $10, 0, FALSE, 0
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
), posting AS (
    SELECT i.* FROM {outbox_items:$26} i WHERE EXISTS (SELECT 1 FROM task)
        AND NOT EXISTS (SELECT 1 FROM outbox k WHERE k.delivery_id = i.delivery_id)
), {post_outbox}
SELECT EXISTS (SELECT 1 FROM fenced) AS fenced, EXISTS (SELECT 1 FROM task) AS done

-- name: enqueue_new_tasks
-- Records background tasks with sessions of their own, each with its `queued` event; names those that are new.
-- why: one statement for a burst instead of five for each task. With IS TRUE each list is a hash table, not a join.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::text[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::bigint[], $15::text[]) WITH ORDINALITY
    AS g (turn_id, session_id, user_id, idempotency_key, priority, run_at_us, max_attempts, title, agent_id,
        request, created_us, parent_id, depth, event, place)
), made AS (
    INSERT INTO sessions (session_id, user_id, title, agent_id, archived, created_us, updated_us, epoch, reserved_seq,
        message_count)
    SELECT session_id, user_id, title, agent_id, FALSE, created_us, created_us, 0, 1, 0 FROM given
    ON CONFLICT (session_id) DO NOTHING RETURNING session_id
), ranked AS (
    SELECT g.*, row_number() OVER (PARTITION BY g.user_id, g.priority ORDER BY g.place) + greatest(
        coalesce((SELECT t.rank FROM tasks t WHERE t.user_id = g.user_id AND t.status || '' = 'queued'
            ORDER BY t.rank DESC LIMIT 1), 0),
        coalesce((SELECT t.rank FROM tasks t WHERE t.ready AND NOT t.suspect AND t.priority = g.priority
            ORDER BY t.priority DESC, t.rank, t.turn_id LIMIT 1), 0)) AS rank
    FROM given g WHERE (g.session_id IN (SELECT session_id FROM made)) IS TRUE
), added AS (
    INSERT INTO tasks (turn_id, session_id, user_id, status, attempt, request, idempotency_key, created_us, crashes,
        cancel_requested, last_round, origin, priority, rank, ready, run_at_us, failures, max_attempts, parent_id, depth)
    SELECT turn_id, session_id, user_id, 'queued', 0, request, idempotency_key, created_us, 0, FALSE, 0, 'task', priority,
        rank, run_at_us IS NULL, run_at_us, 0, max_attempts, parent_id, depth FROM ranked
    ON CONFLICT DO NOTHING RETURNING turn_id, session_id
), told AS (
    INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
    SELECT g.session_id, 1, 1, g.turn_id, 'queued', g.event, NULL, $14
    FROM given g WHERE (g.turn_id IN (SELECT turn_id FROM added)) IS TRUE
)
SELECT turn_id FROM added

-- name: claim_tasks
-- A pool takes the next tasks in their order, a few suspects before all others, and becomes the owner of their sessions.
-- why: one statement; what another pool, an owner or an enqueuer has locked is passed over instead of waited for.
-- Through arrays each row is looked up by its key.
WITH suspect AS (
    SELECT t.turn_id, t.session_id, t.status AS was, t.attempt, t.attempt_started_us
    FROM tasks t CROSS JOIN LATERAL (SELECT FROM sessions s WHERE s.session_id = t.session_id FOR UPDATE OF s SKIP LOCKED) s
    WHERE t.ready AND t.suspect AND EXISTS (SELECT 1 FROM owners o WHERE o.owner_id = $1 AND o.lease_until_us > {now_us})
    ORDER BY t.priority DESC, t.rank, t.turn_id LIMIT $5 FOR UPDATE OF t SKIP LOCKED
), first AS (
    SELECT t.turn_id, t.session_id, t.status AS was, t.attempt, t.attempt_started_us
    FROM tasks t CROSS JOIN LATERAL (SELECT FROM sessions s WHERE s.session_id = t.session_id FOR UPDATE OF s SKIP LOCKED) s
    WHERE t.ready AND NOT t.suspect
        AND EXISTS (SELECT 1 FROM owners o WHERE o.owner_id = $1 AND o.lease_until_us > {now_us})
    ORDER BY t.priority DESC, t.rank, t.turn_id LIMIT $2 - (SELECT count(*) FROM suspect) FOR UPDATE OF t SKIP LOCKED
), picked AS (
    SELECT * FROM suspect UNION ALL SELECT * FROM first
), opened AS (
    UPDATE sessions s SET owner_id = $1, epoch = s.epoch + 1, reserved_seq = s.reserved_seq + $3, opened_us = $4
    WHERE s.session_id = ANY (ARRAY(SELECT session_id FROM picked))
    RETURNING s.session_id, s.title, s.agent_id AS session_agent_id, s.archived, s.created_us AS session_created_us,
        s.updated_us, s.owner_id, s.epoch, s.reserved_seq, s.message_count
), claimed AS (
    UPDATE tasks t SET status = 'running', ready = FALSE, run_at_us = NULL, waits_for = NULL, attempt = t.attempt + 1,
        crashes = t.crashes + CASE t.status WHEN 'running' THEN 1 ELSE 0 END, started_us = coalesce(t.started_us, $4),
        attempt_started_us = $4
    WHERE t.turn_id = ANY (ARRAY(SELECT turn_id FROM picked))
    RETURNING t.*
), crashed AS (
    INSERT INTO task_attempts (turn_id, attempt, outcome, error, started_us, finished_us)
    SELECT turn_id, attempt, 'crashed', NULL, attempt_started_us, $4 FROM picked WHERE was = 'running'
    ON CONFLICT (turn_id, attempt) DO NOTHING
)
SELECT c.*, o.title, o.session_agent_id, o.archived, o.session_created_us, o.updated_us, o.owner_id, o.epoch,
    o.reserved_seq, o.message_count, p.was,
    (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.session_id = c.session_id) AS last_seq
FROM claimed c JOIN opened o ON o.session_id = c.session_id JOIN picked p ON p.turn_id = c.turn_id
ORDER BY c.priority DESC, c.rank, c.turn_id

-- name: promote_due
-- Lets tasks whose time has come join their lines, the first in each for the pools; their sessions with live owners.
-- why: one statement for all of them. What an owner, a pool or an enqueuer has locked is passed over: it comes next time.
WITH due AS (
    SELECT t.turn_id, t.session_id, s.owner_id FROM tasks t CROSS JOIN LATERAL (
        SELECT s.owner_id FROM sessions s WHERE s.session_id = t.session_id FOR UPDATE OF s SKIP LOCKED) s
    WHERE t.status || '' = 'queued' AND t.run_at_us <= $1 ORDER BY t.run_at_us LIMIT $2 FOR UPDATE OF t SKIP LOCKED
), owned AS (
    SELECT d.turn_id, d.session_id, (SELECT o.owner_id FROM owners o
        WHERE o.owner_id = d.owner_id AND o.lease_until_us > {now_us}) AS owner_id FROM due d
), first AS (
    SELECT coalesce(
        (SELECT b.turn_id FROM tasks b WHERE b.session_id = f.session_id AND b.status IN ('queued', 'running')
            AND b.attempt > 0 ORDER BY b.created_us LIMIT 1),
        (SELECT n.turn_id FROM tasks n WHERE n.session_id = f.session_id AND n.status IN ('queued', 'running')
            AND (n.run_at_us IS NULL OR n.run_at_us <= $1) ORDER BY n.created_us, n.turn_id LIMIT 1)) AS turn_id
    FROM (SELECT DISTINCT session_id FROM owned WHERE owner_id IS NULL) f
), come AS (
    UPDATE tasks t SET run_at_us = NULL, waits_for = NULL, ready = t.ready OR t.turn_id IN (SELECT turn_id FROM first)
    WHERE t.turn_id = ANY (ARRAY(SELECT turn_id FROM owned UNION SELECT turn_id FROM first)) AND t.status || '' IN ('queued', 'running')
        AND (t.run_at_us IS NULL OR t.run_at_us <= $1)
)
SELECT session_id, owner_id FROM owned

-- name: finish_and_leave
-- Completes turns, each with its last messages and events, and gives their sessions up; says what became of each.
-- why: one statement, and one sync, for all turns that end at about the same time. With || '', = ANY and IS NOT DISTINCT
-- FROM nothing but a key's index can be read, not one as a whole, which looks cheap after an ANALYZE of an empty queue.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
        $8::text[], $9::text[], $10::bigint[], $11::bigint[])
    AS g (session_id, epoch, turn_id, attempt, status, answer, error, usage, stop_reason, finished_us, last_seq)
), fenced AS (
    SELECT g.* FROM given g JOIN sessions s ON s.session_id = g.session_id
    WHERE s.session_id = ANY ($1) AND s.epoch = g.epoch AND s.owner_id || '' IS NOT NULL
    ORDER BY s.session_id FOR UPDATE OF s
), task AS (
    UPDATE tasks t SET status = f.status, answer = f.answer, error = f.error, usage = f.usage,
        stop_reason = f.stop_reason, finished_us = f.finished_us
    FROM fenced f WHERE t.turn_id = ANY ($3) AND t.turn_id = f.turn_id AND t.attempt = f.attempt
        AND t.session_id IS NOT DISTINCT FROM f.session_id
        AND t.status || '' IN ('queued', 'running') AND NOT (t.cancel_requested AND f.status = 'succeeded')
    RETURNING t.turn_id, t.session_id
), said AS (
    INSERT INTO messages (session_id, position, turn_id, round, role, body, created_us)
    SELECT n.* FROM unnest($12::text[], $13::bigint[], $14::text[], $15::bigint[], $16::text[], $17::text[],
        $18::bigint[]) AS n (session_id, position, turn_id, round, role, body, created_us)
    WHERE n.turn_id IN (SELECT turn_id FROM task) AND NOT EXISTS (SELECT 1 FROM messages m
        WHERE m.session_id = n.session_id AND m.position = n.position AND m.turn_id = n.turn_id AND m.body = n.body)
    RETURNING session_id
), told AS (
    INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
    SELECT e.* FROM unnest($19::text[], $20::bigint[], $21::bigint[], $22::text[], $23::text[], $24::text[],
        $25::text[], $26::bigint[]) AS e (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
    WHERE e.session_id IN (SELECT session_id FROM task)
    ON CONFLICT (session_id, seq) DO NOTHING
), closed AS (
    UPDATE sessions s SET owner_id = NULL, updated_us = greatest(s.updated_us, f.finished_us),
        reserved_seq = least(s.reserved_seq, f.last_seq),
        message_count = s.message_count + (SELECT count(*) FROM said WHERE said.session_id = s.session_id)
    FROM fenced f JOIN task t ON t.turn_id = f.turn_id WHERE s.session_id = ANY ($1) AND s.session_id = f.session_id
), following AS (
    UPDATE tasks SET ready = TRUE WHERE turn_id = ANY (ARRAY(
        SELECT coalesce(
            (SELECT b.turn_id FROM tasks b WHERE b.session_id = t.session_id AND b.status IN ('queued', 'running')
                AND b.attempt > 0 AND b.turn_id <> t.turn_id ORDER BY b.created_us LIMIT 1),
            (SELECT n.turn_id FROM tasks n WHERE n.session_id = t.session_id AND n.status IN ('queued', 'running')
                AND n.run_at_us IS NULL AND n.turn_id <> t.turn_id ORDER BY n.created_us, n.turn_id LIMIT 1))
        FROM task t
    )) AND run_at_us IS NULL RETURNING turn_id
), posting AS (
    SELECT i.* FROM {outbox_items:$27} i JOIN task t ON t.turn_id = i.turn_id
    WHERE NOT EXISTS (SELECT 1 FROM outbox k WHERE k.delivery_id = i.delivery_id)
), {post_outbox}
SELECT f.turn_id, EXISTS (SELECT 1 FROM task t WHERE t.turn_id = f.turn_id) AS done,
    (SELECT count(*) FROM following) AS following FROM fenced f

-- name: claim_routes
-- Takes what is due of several routes, of each at most so many, and makes each the caller's attempt.
-- why: one statement for all routes; what another outbox is taking is passed over instead of waited for.
WITH picked AS (
    SELECT p.delivery_id FROM unnest($2::text[], $4::bigint[]) AS g (route, free) CROSS JOIN LATERAL (
        SELECT o.delivery_id FROM outbox o WHERE o.ready AND o.route = g.route AND o.due_us <= $3
        ORDER BY o.due_us, o.delivery_id LIMIT g.free FOR UPDATE SKIP LOCKED) AS p
    WHERE EXISTS (SELECT 1 FROM owners w WHERE w.owner_id = $1 AND w.lease_until_us > {now_us})
)
UPDATE outbox SET state = 'sending', ready = FALSE, attempt = attempt + 1, owner_id = $1, claimed_us = $3,
    first_us = coalesce(first_us, $3)
WHERE delivery_id = ANY (ARRAY(SELECT delivery_id FROM picked))
RETURNING {outbox_item}
