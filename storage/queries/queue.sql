-- The task queue, one text for both databases (see shared.sql for how it is written).

-- name: claim_session
-- Gives a session without a live owner to a pool that has claimed its next task.
UPDATE sessions SET owner_id = $2, epoch = epoch + 1, reserved_seq = reserved_seq + $3, opened_us = $4
WHERE session_id = $1
RETURNING {session}, (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.session_id = sessions.session_id) AS last_seq

-- name: hold_queued
-- A session that has an owner: none of its tasks is for the pools.
UPDATE tasks SET ready = FALSE WHERE session_id = $1 AND status IN ('queued', 'running') AND ready

-- name: release_next
-- A session that has no owner any more: the first task in its line is for the pools, if it may start now.
UPDATE tasks SET ready = TRUE WHERE turn_id = coalesce(
    (SELECT b.turn_id FROM tasks b WHERE b.session_id = $1 AND b.status IN ('queued', 'running') AND b.attempt > 0
        ORDER BY b.created_us LIMIT 1),
    (SELECT n.turn_id FROM tasks n WHERE n.session_id = $1 AND n.status IN ('queued', 'running')
        AND (n.run_at_us IS NULL OR n.run_at_us <= $2) ORDER BY n.created_us, n.turn_id LIMIT 1)
) AND (run_at_us IS NULL OR run_at_us <= $2)

-- name: sessions_of_owner
-- The sessions that an owner has, with their epochs.
SELECT session_id, epoch FROM sessions WHERE owner_id = $1

-- name: queued_by_user
-- How many tasks a user has queued, counted up to a bound.
SELECT count(*) AS queued FROM (SELECT 1 FROM tasks WHERE user_id = $1 AND status || '' = 'queued'
    AND waits_for IS NULL LIMIT $2) AS counted

-- name: queued_in_all
-- How many tasks are queued, counted up to a bound.
SELECT count(*) AS queued FROM (SELECT 1 FROM tasks WHERE status || '' = 'queued' AND waits_for IS NULL LIMIT $1) AS counted

-- name: queue_position
-- The place of a task among those for the pools, the first being 1, counted up to a bound; no row if it is not one.
SELECT 1
    + (SELECT count(*) FROM (SELECT 1 FROM tasks a WHERE a.ready AND NOT a.suspect AND a.priority > m.priority
        LIMIT $2) AS higher)
    + (SELECT count(*) FROM (SELECT 1 FROM tasks a WHERE a.ready AND NOT a.suspect AND a.priority = m.priority
        AND (a.rank, a.turn_id) < (m.rank, m.turn_id) LIMIT $2) AS earlier) AS position
FROM (SELECT priority, rank, turn_id FROM tasks WHERE turn_id = $1 AND CASE WHEN ready THEN NOT suspect ELSE FALSE END) AS m

-- name: next_rank
-- The place of a user's next task in the fair order: behind the user's own, but not before what is next for all.
SELECT 1 + {greatest}(
    coalesce((SELECT rank FROM tasks WHERE user_id = $1 AND status || '' = 'queued' ORDER BY rank DESC LIMIT 1), 0),
    coalesce((SELECT rank FROM tasks WHERE ready AND NOT suspect AND priority = $2
        ORDER BY priority DESC, rank, turn_id LIMIT 1), 0)
) AS rank

-- name: has_line
-- Whether a session has a task that is running, or that is in line for it.
SELECT EXISTS (SELECT 1 FROM tasks WHERE session_id = $1 AND status IN ('queued', 'running')
    AND (run_at_us IS NULL OR run_at_us <= $2 OR attempt > 0)) AS found

-- name: enqueue_task
-- Records a background task unless its id or its idempotency key is known.
INSERT INTO tasks (turn_id, session_id, user_id, status, attempt, request, idempotency_key, created_us, crashes,
    cancel_requested, last_round, origin, priority, rank, ready, run_at_us, failures, max_attempts, parent_id, depth)
VALUES ($1, $2, $3, 'queued', 0, $4, $5, $6, 0, FALSE, 0, 'task', $7, $8, $9, $10, 0, $11, $12, $13)
ON CONFLICT DO NOTHING

-- name: take_number
-- Numbers one event of a session that has no live owner; its row is locked.
UPDATE sessions SET reserved_seq = reserved_seq + 1, updated_us = {greatest}(updated_us, $2) WHERE session_id = $1
RETURNING reserved_seq

-- name: claimable_tasks
-- The next tasks for the pools, in their order.
SELECT turn_id, session_id, status FROM tasks WHERE ready AND NOT suspect
ORDER BY priority DESC, rank, turn_id LIMIT $1

-- name: claimable_suspects
-- The next tasks for the pools that may be why a process has died.
SELECT turn_id, session_id, status FROM tasks WHERE ready AND suspect ORDER BY priority DESC, rank, turn_id LIMIT $1

-- name: release_orphan
-- A session that has no owner any more, maybe by the death of that one ($3): if a background task is first in its line,
-- it is for the pools; one that ran may be why.
UPDATE tasks SET ready = TRUE, suspect = suspect OR (status = 'running' AND $3) WHERE turn_id = coalesce(
    (SELECT b.turn_id FROM tasks b WHERE b.session_id = $1 AND b.status IN ('queued', 'running') AND b.attempt > 0
        ORDER BY b.created_us LIMIT 1),
    (SELECT n.turn_id FROM tasks n WHERE n.session_id = $1 AND n.status IN ('queued', 'running')
        AND (n.run_at_us IS NULL OR n.run_at_us <= $2) ORDER BY n.created_us, n.turn_id LIMIT 1)
) AND (run_at_us IS NULL OR run_at_us <= $2) AND origin = 'task'

-- name: claim_task
-- A pool starts a task (or takes it up again): a new attempt; one that ran before has lost a process.
UPDATE tasks SET status = 'running', ready = FALSE, run_at_us = NULL, waits_for = NULL, attempt = attempt + 1,
    crashes = crashes + CASE status WHEN 'running' THEN 1 ELSE 0 END, started_us = coalesce(started_us, $2),
    attempt_started_us = $2
WHERE turn_id = $1 AND ready
RETURNING {task}

-- name: retry_task
-- A failed attempt that is tried again later.
UPDATE tasks SET status = 'queued', failures = failures + 1, run_at_us = $4, error = $5
WHERE turn_id = $1 AND session_id = $2 AND attempt = $3 AND status = 'running' AND NOT cancel_requested

-- name: record_attempt
-- Keeps how an attempt ended that did not complete its task.
INSERT INTO task_attempts (turn_id, attempt, outcome, error, started_us, finished_us)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (turn_id, attempt) DO NOTHING

-- name: record_crash
-- Keeps that a running task's attempt ended with its owner; found out now, by whoever takes it up again.
INSERT INTO task_attempts (turn_id, attempt, outcome, error, started_us, finished_us)
SELECT turn_id, attempt, 'crashed', NULL, attempt_started_us, $2 FROM tasks WHERE turn_id = $1 AND status = 'running'
ON CONFLICT (turn_id, attempt) DO NOTHING

-- name: record_end
-- Keeps how a dead or failed task's last attempt ended: it is to be tried again.
INSERT INTO task_attempts (turn_id, attempt, outcome, error, started_us, finished_us)
SELECT turn_id, attempt, status, error, attempt_started_us, finished_us FROM tasks
WHERE turn_id = $1 AND status IN ('failed', 'dead') AND attempt > 0 AND finished_us IS NOT NULL
ON CONFLICT (turn_id, attempt) DO NOTHING

-- name: list_attempts
-- The attempts of a task that did not complete it, or not for good.
SELECT turn_id, attempt, outcome, error, started_us, finished_us FROM task_attempts WHERE turn_id = $1 ORDER BY attempt

-- name: delete_session_attempts
-- Removes the attempts of a deleted session's tasks.
DELETE FROM task_attempts WHERE turn_id IN (SELECT turn_id FROM tasks WHERE session_id = $1)

-- name: due_tasks
-- Queued tasks whose time has come, with their sessions' owners if those are live.
SELECT t.turn_id, t.session_id, o.owner_id FROM tasks t JOIN sessions s ON s.session_id = t.session_id
LEFT JOIN owners o ON o.owner_id = s.owner_id AND o.lease_until_us > {now_us}
WHERE t.status || '' = 'queued' AND t.run_at_us <= $1 ORDER BY t.run_at_us LIMIT $2

-- name: next_due
-- When the next task that waits for its time may start.
SELECT min(run_at_us) AS run_at_us FROM tasks WHERE status || '' = 'queued' AND run_at_us IS NOT NULL

-- name: come_due
-- A task's time has come, or a turn has waited for its children long enough.
UPDATE tasks SET run_at_us = NULL, waits_for = NULL WHERE turn_id = $1 AND status = 'queued' AND run_at_us <= $2

-- fragment: shown_status
-- A task's state as people see it.
CASE WHEN waits_for IS NOT NULL AND status = 'queued' THEN 'waiting' ELSE status END

-- name: list_tasks
-- A page of everybody's tasks, newest first, before a cursor.
SELECT {task} FROM tasks
WHERE (CAST($1 AS TEXT) IS NULL OR {shown_status} = $1) AND (CAST($2 AS TEXT) IS NULL OR session_id = $2)
    AND (created_us + 0, turn_id || '') < ($3, $4)
ORDER BY created_us + 0 DESC, turn_id || '' DESC LIMIT $5

-- name: list_user_tasks
-- A page of one user's tasks, newest first, before a cursor.
SELECT {task} FROM tasks
WHERE user_id = $6 AND (CAST($1 AS TEXT) IS NULL OR {shown_status} = $1) AND (CAST($2 AS TEXT) IS NULL OR session_id = $2)
    AND (created_us, turn_id || '') < ($3, $4)
ORDER BY created_us DESC, turn_id || '' DESC LIMIT $5

-- name: requeue_task
-- Puts a dead or failed task back into its line with a fresh budget.
UPDATE tasks SET status = 'queued', failures = 0, crashes = 0, suspect = FALSE, cancel_requested = FALSE,
    finished_us = NULL, error = NULL, stop_reason = NULL, run_at_us = NULL, waits_for = NULL, ready = FALSE
WHERE turn_id = $1 AND status IN ('failed', 'dead')
RETURNING {task}

-- name: queue_states
-- How many tasks are in each state that is not an end, and since when the oldest of them.
SELECT {shown_status} AS status, count(*) AS tasks, min(created_us) AS oldest_us FROM tasks
WHERE status IN ('queued', 'running') GROUP BY 1
