-- Child tasks, one text for both databases (see shared.sql for how it is written).

-- name: suspend_task
-- A running turn waits for children: it is queued until `run_at_us`, or until the last of them has ended.
UPDATE tasks SET status = 'queued', waits_for = $4, run_at_us = $5
WHERE turn_id = $1 AND session_id = $2 AND attempt = $3 AND status = 'running' AND NOT cancel_requested

-- name: end_wait
-- One turn waits no longer if every child that it waits for has ended.
UPDATE tasks SET run_at_us = $2, waits_for = NULL
WHERE turn_id = $1 AND status = 'queued' AND waits_for IS NOT NULL AND NOT {open_awaited}
RETURNING session_id

-- name: end_waits
-- The same for every turn that waits.
UPDATE tasks SET run_at_us = $1, waits_for = NULL
WHERE status = 'queued' AND waits_for IS NOT NULL AND NOT {open_awaited}

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
-- Children that go on although their parent has ended without success: somebody died before they were told.
SELECT c.turn_id, c.session_id FROM tasks c JOIN tasks p ON p.turn_id = c.parent_id
WHERE c.parent_id IS NOT NULL AND c.status IN ('queued', 'running')
    AND p.status IN ('failed', 'cancelled', 'interrupted', 'dead')
ORDER BY c.turn_id LIMIT $1
