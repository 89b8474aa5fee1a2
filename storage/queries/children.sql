-- Turns that wait for their children or for a person, one text for both databases (see shared.sql for how it is written).

-- name: suspend_task
-- A running turn waits for children or a person: it is queued until `run_at_us`, or until that has come.
UPDATE tasks SET status = 'queued', waits_for = $4, waiting = $5, run_at_us = $6
WHERE turn_id = $1 AND session_id = $2 AND attempt = $3 AND status = 'running' AND NOT cancel_requested

-- name: end_wait
-- One turn waits no longer if every child that it waits for has ended.
UPDATE tasks SET run_at_us = $2, waits_for = NULL
WHERE turn_id = $1 AND status = 'queued' AND waits_for IS NOT NULL AND waits_for NOT LIKE 'person:%' AND NOT {open_awaited}
RETURNING session_id

-- name: end_waits
-- The same for every turn that waits.
UPDATE tasks SET run_at_us = $1, waits_for = NULL
WHERE status = 'queued' AND waits_for IS NOT NULL AND waits_for NOT LIKE 'person:%' AND NOT {open_awaited}

-- fragment: open_awaited
-- Whether a child that a turn waits for has not ended.
EXISTS (SELECT 1 FROM tasks c WHERE c.parent_id = tasks.turn_id AND c.parent_id IS NOT NULL
    AND c.status IN ('queued', 'running') AND tasks.waits_for LIKE '%' || c.turn_id || '%')

-- name: list_children
-- The children of a turn, in the order in which they were started.
SELECT {task} FROM tasks WHERE parent_id = $1 ORDER BY created_us, turn_id LIMIT $2

-- name: cancel_children
-- Marks the children of a turn that have not ended as to be cancelled.
UPDATE tasks SET cancel_requested = TRUE
WHERE parent_id = $1 AND parent_id IS NOT NULL AND status IN ('queued', 'running')
RETURNING turn_id, session_id

-- name: stray_children
-- Children that go on although their parent has ended without success, or was deleted with its session.
SELECT c.turn_id, c.session_id FROM tasks c LEFT JOIN tasks p ON p.turn_id = c.parent_id
WHERE c.parent_id IS NOT NULL AND c.status IN ('queued', 'running')
    AND (p.turn_id IS NULL OR p.status IN ('failed', 'cancelled', 'interrupted', 'dead'))
ORDER BY c.turn_id LIMIT $1

-- name: answer_wait
-- A turn that waits for this answer of a person goes on now.
UPDATE tasks SET run_at_us = NULL, waits_for = NULL
WHERE turn_id = $1 AND status = 'queued' AND waits_for = $2
RETURNING {task}

-- name: add_reply
-- Keeps what a person answered; the first answer counts.
INSERT INTO task_replies (turn_id, call_id, user_id, body, created_us) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (turn_id, call_id) DO NOTHING

-- name: find_reply
-- What a person answered to a call.
SELECT body FROM task_replies WHERE turn_id = $1 AND call_id = $2

-- name: delete_session_replies
-- Removes the answers to a deleted session's turns.
DELETE FROM task_replies WHERE turn_id IN (SELECT turn_id FROM tasks WHERE session_id = $1)
