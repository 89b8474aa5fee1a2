-- One text for both databases. `$n` are parameters. `{word}` stands for a fragment, `{word:$7}` for one whose
-- first parameter is the seventh. Times come in as parameters; only leases use the database's clock, `{now_us}`.

-- fragment: user
-- The columns of a UserRecord.
user_id, username, password_hash, email, is_admin, created_us

-- fragment: session
-- The columns of a SessionRecord.
session_id, user_id, title, agent_id, archived, created_us, updated_us, owner_id, epoch, reserved_seq, message_count

-- fragment: task
-- The columns of a TaskRecord.
turn_id, session_id, user_id, status, attempt, crashes, cancel_requested, request, idempotency_key, answer, error,
    usage, stop_reason, last_round, created_us, started_us, finished_us, origin, priority, run_at_us, failures,
    max_attempts, parent_id, depth, waits_for, waiting, attempt_started_us, suspect

-- name: ping
-- One trivial statement.
SELECT 1 AS one

-- name: create_migrations
-- Makes the table that records which migrations were applied.
CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, applied_us BIGINT NOT NULL)

-- name: list_migrations
-- The migrations that were applied.
SELECT name FROM schema_migrations ORDER BY name

-- name: record_migration
-- Records that a migration was applied, in the transaction that applied it.
INSERT INTO schema_migrations (name, applied_us) VALUES ($1, {now_us})

-- name: create_user
-- Adds a user; the unique username_key refuses a name that differs by case only.
INSERT INTO users (user_id, username, username_key, password_hash, email, is_admin, created_us)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: has_admin
-- Whether there is an admin.
SELECT EXISTS (SELECT 1 FROM users WHERE is_admin) AS found

-- name: find_user
-- The user with this name, compared without case.
SELECT {user} FROM users WHERE username_key = $1

-- name: get_user
-- The user with this id.
SELECT {user} FROM users WHERE user_id = $1

-- name: update_user
-- Changes what is not NULL of a user.
UPDATE users SET email = coalesce($2, email), password_hash = coalesce($3, password_hash)
WHERE user_id = $1
RETURNING {user}

-- name: put_token
-- Stores a token by its hash.
INSERT INTO tokens (token_hash, user_id, created_us, expires_us) VALUES ($1, $2, $3, $4)
ON CONFLICT (token_hash) DO UPDATE SET expires_us = excluded.expires_us

-- name: find_token
-- The unexpired token with its user.
SELECT t.token_hash, t.created_us AS token_created_us, t.expires_us,
    u.user_id, u.username, u.password_hash, u.email, u.is_admin, u.created_us
FROM tokens t JOIN users u ON u.user_id = t.user_id
WHERE t.token_hash = $1 AND t.expires_us > $2

-- name: delete_token
-- Ends a token; its tickets go with it.
DELETE FROM tokens WHERE token_hash = $1

-- name: delete_user_tokens
-- Ends a user's tokens except one.
DELETE FROM tokens WHERE user_id = $1 AND token_hash <> $2 RETURNING token_hash

-- name: put_ticket
-- Stores a ticket by its hash.
INSERT INTO tickets (ticket_hash, user_id, token_hash, expires_us) VALUES ($1, $2, $3, $4)
ON CONFLICT (ticket_hash) DO NOTHING

-- name: take_ticket
-- Uses up a ticket: the row can be deleted once only.
DELETE FROM tickets WHERE ticket_hash = $1 AND expires_us > $2
RETURNING ticket_hash, user_id, token_hash, expires_us

-- name: delete_expired_tickets
-- Retention of tickets.
DELETE FROM tickets WHERE expires_us <= $1

-- name: delete_expired_tokens
-- Retention of tokens.
DELETE FROM tokens WHERE expires_us <= $1

-- name: create_session
-- Adds a session unless its id is there already.
INSERT INTO sessions (session_id, user_id, title, agent_id, archived, created_us, updated_us,
    epoch, reserved_seq, message_count)
VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0)
ON CONFLICT (session_id) DO NOTHING

-- name: get_session
-- One session.
SELECT {session}
FROM sessions WHERE session_id = $1

-- name: list_sessions
-- A page of everybody's sessions, newest first.
SELECT {session}
FROM sessions WHERE CAST($1 AS TEXT) IS NULL OR agent_id = $1
ORDER BY created_us DESC, session_id || '' DESC LIMIT $2 OFFSET $3

-- name: count_sessions
-- How many sessions there are.
SELECT count(*) AS total FROM sessions WHERE CAST($1 AS TEXT) IS NULL OR agent_id = $1

-- name: list_user_sessions
-- A page of one user's sessions, newest first.
SELECT {session}
FROM sessions WHERE user_id = $4 AND (CAST($1 AS TEXT) IS NULL OR agent_id = $1)
ORDER BY created_us DESC, session_id || '' DESC LIMIT $2 OFFSET $3

-- name: count_user_sessions
-- How many sessions a user has.
SELECT count(*) AS total FROM sessions WHERE user_id = $2 AND (CAST($1 AS TEXT) IS NULL OR agent_id = $1)

-- name: update_session
-- Changes what is not NULL of a session.
UPDATE sessions SET title = coalesce($2, title), archived = coalesce($3, archived),
    updated_us = {greatest}(updated_us, $4)
WHERE session_id = $1
RETURNING {session}

-- name: delete_session
-- Removes a session's row, which ends its owner's right to write.
DELETE FROM sessions WHERE session_id = $1

-- name: delete_session_messages
-- Removes a deleted session's transcript.
DELETE FROM messages WHERE session_id = $1

-- name: delete_session_events
-- Removes a deleted session's events.
DELETE FROM events WHERE session_id = $1

-- name: delete_session_tasks
-- Removes a deleted session's tasks.
DELETE FROM tasks WHERE session_id = $1

-- name: register_owner
-- Adds an owner with a fresh lease in database time.
INSERT INTO owners (owner_id, node_id, lease_until_us) VALUES ($1, $2, {now_us} + $3)
ON CONFLICT (owner_id) DO UPDATE SET node_id = excluded.node_id, lease_until_us = excluded.lease_until_us

-- name: renew_owner
-- Extends a lease that has not lapsed in database time.
UPDATE owners SET lease_until_us = {now_us} + $2 WHERE owner_id = $1 AND lease_until_us > {now_us}

-- name: expire_owner
-- Ends a lease now.
UPDATE owners SET lease_until_us = {least}(lease_until_us, {now_us}) WHERE owner_id = $1

-- name: live_owners
-- Owners whose lease has not lapsed.
SELECT owner_id FROM owners WHERE lease_until_us > {now_us} ORDER BY owner_id

-- name: delete_lapsed_owners
-- Forgets owners that lapsed some time ago and own nothing.
DELETE FROM owners
WHERE lease_until_us <= {now_us} - $1
    AND NOT EXISTS (SELECT 1 FROM sessions s WHERE s.owner_id = owners.owner_id)

-- name: lock_session
-- The session's owner, with its row locked for the rest of the transaction, whoever may write it.
SELECT owner_id FROM sessions WHERE session_id = $1 {for_update}

-- name: owner_is_live
-- Whether an owner's lease is live; read after the session is locked, so that it is not an old answer.
SELECT EXISTS (SELECT 1 FROM owners WHERE owner_id = $1 AND lease_until_us > {now_us}) AS live

-- name: open_session
-- Gives the locked session to an owner: the next epoch and a block of event numbers.
UPDATE sessions SET owner_id = $2, epoch = epoch + 1, reserved_seq = reserved_seq + $3, opened_us = $4
WHERE session_id = $1
RETURNING {session}, (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.session_id = sessions.session_id) AS last_seq

-- name: close_session
-- Gives a session up and returns the numbers above its last event; repeating it changes nothing.
UPDATE sessions SET owner_id = NULL, reserved_seq = {least}(reserved_seq, {greatest}(
    $3, (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.session_id = sessions.session_id)))
WHERE session_id = $1 AND epoch = $2

-- name: disown_session
-- Gives a session up whose last write is unknown; its numbers stay reserved.
UPDATE sessions SET owner_id = NULL WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL

-- name: reserve_seq
-- Raises the number up to which the owner may number events.
UPDATE sessions SET reserved_seq = {greatest}(reserved_seq, $3)
WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL

-- name: owned_sessions
-- Sessions whose owner's lease is live.
SELECT s.session_id, s.owner_id FROM sessions s JOIN owners o ON o.owner_id = s.owner_id
WHERE o.lease_until_us > {now_us} ORDER BY s.session_id

-- name: orphaned_sessions
-- Sessions with work to do and no live owner, the longest waiting first.
SELECT t.session_id FROM tasks t JOIN sessions s ON s.session_id = t.session_id
WHERE t.status IN ('queued', 'running') AND (CAST($2 AS BOOLEAN) OR (NOT t.ready AND NOT EXISTS (
        SELECT 1 FROM tasks r WHERE r.session_id = t.session_id AND r.status IN ('queued', 'running') AND r.ready)))
    AND (t.run_at_us IS NULL OR t.run_at_us <= $3)
    AND NOT EXISTS (SELECT 1 FROM owners o WHERE o.owner_id = s.owner_id AND o.lease_until_us > {now_us})
GROUP BY t.session_id ORDER BY min(t.created_us), t.session_id LIMIT $1

-- name: load_messages
-- The newest messages, newest first.
SELECT session_id, position, turn_id, round, role, body, created_us
FROM messages WHERE session_id = $1 ORDER BY position DESC LIMIT $2

-- name: page_messages
-- The newest messages below a position, newest first.
SELECT session_id, position, turn_id, round, role, body, created_us
FROM messages WHERE session_id = $1 AND position < $3 ORDER BY position DESC LIMIT $2

-- name: fence_session
-- The session if the caller's epoch still owns it, locked so that a new owner waits for this transaction.
SELECT session_id FROM sessions WHERE session_id = $1 AND epoch = $2 AND owner_id IS NOT NULL {for_update}

-- name: touch_session
-- Counts new messages of a session and notes when it changed.
UPDATE sessions SET updated_us = {greatest}(updated_us, $2), message_count = message_count + $3
WHERE session_id = $1

-- name: insert_messages
-- Adds messages; the very same message is skipped, another one at its position is refused by the key.
INSERT INTO messages (session_id, position, turn_id, round, role, body, created_us)
SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (
    SELECT 1 FROM messages WHERE session_id = $1 AND position = $2 AND turn_id = $3 AND body = $6)

-- name: insert_events
-- Adds events; what is there already is left alone.
INSERT INTO events (session_id, first_seq, seq, turn_id, kind, data, parts, created_us)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (session_id, seq) DO NOTHING

-- name: read_events
-- Events after a cursor: those before which less than the given number of bytes of data precede.
SELECT session_id, first_seq, seq, turn_id, kind, data, parts, created_us FROM (
    SELECT session_id, first_seq, seq, turn_id, kind, data, parts, created_us,
        sum({data_bytes}) OVER (ORDER BY seq) - {data_bytes} AS bytes_before
    FROM (
        SELECT session_id, first_seq, seq, turn_id, kind, data, parts, created_us
        FROM events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
    ) AS page
) AS measured WHERE bytes_before < $4 ORDER BY seq

-- name: last_event_seq
-- The greatest stored event number of a session.
SELECT coalesce(max(seq), 0) AS seq FROM events WHERE session_id = $1

-- name: insert_task
-- Records a turn unless its id or its idempotency key is known, or another turn of the session runs.
INSERT INTO tasks (turn_id, session_id, user_id, status, attempt, request, idempotency_key, created_us,
    started_us, attempt_started_us, crashes, cancel_requested, last_round)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, 0, FALSE, 0)
ON CONFLICT DO NOTHING

-- name: start_turn
-- queued -> running, unless its cancel was requested.
UPDATE tasks SET status = 'running', attempt = attempt + 1, waits_for = NULL, started_us = coalesce(started_us, $3),
    attempt_started_us = $3
WHERE turn_id = $1 AND session_id = $2 AND status = 'queued' AND NOT cancel_requested
RETURNING {task}

-- name: resume_turn
-- A new attempt of a running turn whose last one ended with its owner.
UPDATE tasks SET attempt = attempt + 1, crashes = crashes + 1, started_us = coalesce(started_us, $3),
    attempt_started_us = $3
WHERE turn_id = $1 AND session_id = $2 AND status = 'running'
RETURNING {task}

-- name: advance_task
-- Notes that a running attempt finished a round.
UPDATE tasks SET last_round = {greatest}(last_round, $4)
WHERE turn_id = $1 AND session_id = $2 AND attempt = $3 AND status = 'running'

-- name: finish_task
-- Completes a task at its attempt; a success is refused once its cancel was requested.
UPDATE tasks SET status = $4, answer = $5, error = $6, usage = $7, stop_reason = $8, finished_us = $9
WHERE turn_id = $1 AND session_id = $2 AND attempt = $3 AND status IN ('queued', 'running')
    AND NOT (cancel_requested AND $4 = 'succeeded')

-- name: request_cancel
-- Marks a task that has not ended as to be cancelled.
UPDATE tasks SET cancel_requested = TRUE WHERE turn_id = $1 AND status IN ('queued', 'running')
RETURNING {task}

-- name: get_task
-- One task.
SELECT {task} FROM tasks WHERE turn_id = $1

-- name: find_idempotent
-- The task that a user asked for under an idempotency key.
SELECT {task} FROM tasks WHERE user_id = $1 AND idempotency_key = $2

-- name: active_tasks
-- A session's tasks that have not ended: the running one, then one that has begun, then the others, oldest first.
SELECT {task} FROM tasks WHERE session_id = $1 AND status IN ('queued', 'running')
ORDER BY CASE WHEN status = 'running' THEN 0 WHEN attempt > 0 THEN 1 ELSE 2 END, created_us, turn_id LIMIT $2

-- name: running_tasks
-- Every running task with its session's owner.
SELECT t.turn_id, t.session_id, t.user_id, s.owner_id
FROM tasks t LEFT JOIN sessions s ON s.session_id = t.session_id
WHERE t.status = 'running' ORDER BY t.turn_id

-- name: forget_idempotency_keys
-- Retention of the idempotency keys of finished tasks.
UPDATE tasks SET idempotency_key = NULL WHERE idempotency_key IS NOT NULL AND finished_us < $1
