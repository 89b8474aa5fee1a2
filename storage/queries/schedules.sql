-- Schedules, one text for both databases (see shared.sql for how it is written).

-- fragment: schedule
-- The columns of a ScheduleRecord.
schedule_id, user_id, name, kind, expression, zone, anchor_us, request, session_id, missed, grace_us, paused,
    pause_reason, next_run_us, last_run_us, runs, revision, created_us, updated_us

-- name: create_schedule
-- Adds a schedule unless its id is there already.
INSERT INTO schedules (schedule_id, user_id, name, kind, expression, zone, anchor_us, request, session_id, missed,
    grace_us, paused, pause_reason, next_run_us, created_us, updated_us, runs, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, 0, 0)
ON CONFLICT (schedule_id) DO NOTHING

-- name: count_user_schedules
-- How many schedules a user has.
SELECT count(*) AS schedules FROM schedules WHERE user_id = $1

-- name: get_schedule
-- One schedule.
SELECT {schedule} FROM schedules WHERE schedule_id = $1

-- name: lock_schedule
-- One schedule, with its row locked for the rest of the transaction.
SELECT {schedule} FROM schedules WHERE schedule_id = $1 {for_update}

-- name: list_schedules
-- A page of everybody's schedules, newest first, before a cursor.
SELECT {schedule} FROM schedules WHERE (created_us, schedule_id) < ($1, $2)
ORDER BY created_us DESC, schedule_id DESC LIMIT $3

-- name: list_user_schedules
-- A page of one user's schedules, newest first, before a cursor.
SELECT {schedule} FROM schedules WHERE user_id = $4 AND (created_us, schedule_id) < ($1, $2)
ORDER BY created_us DESC, schedule_id DESC LIMIT $3

-- name: update_schedule
-- Changes a schedule that is as its reader saw it; its next due time only if that is told ($15).
UPDATE schedules SET name = $3, kind = $4, expression = $5, zone = $6, anchor_us = $7, request = $8, session_id = $9,
    missed = $10, grace_us = $11, paused = $12, pause_reason = $13, updated_us = $14, revision = revision + 1,
    next_run_us = CASE WHEN CAST($15 AS BOOLEAN) THEN CAST($16 AS BIGINT) ELSE next_run_us END
WHERE schedule_id = $1 AND revision = $2
RETURNING {schedule}

-- name: delete_schedule
-- Removes a schedule.
DELETE FROM schedules WHERE schedule_id = $1

-- name: delete_schedule_runs
-- Removes the history of a deleted schedule.
DELETE FROM schedule_runs WHERE schedule_id = $1

-- name: due_schedules
-- Schedules whose time has come, the longest due first, after a cursor.
SELECT {schedule} FROM schedules
WHERE NOT paused AND next_run_us <= $1 AND (next_run_us, schedule_id) > ($2, $3)
ORDER BY next_run_us, schedule_id LIMIT $4

-- name: next_schedule_due
-- When the next schedule is due whose time has not come yet.
SELECT min(next_run_us) AS next_run_us FROM schedules WHERE NOT paused AND next_run_us > $1

-- name: count_active_schedules
-- How many schedules wait for a due time.
SELECT count(*) AS schedules FROM schedules WHERE NOT paused AND next_run_us IS NOT NULL

-- name: advance_schedule
-- Takes a due time: of all who saw it, one gets it. What was changed meanwhile is not advanced.
UPDATE schedules SET next_run_us = $4, last_run_us = coalesce($5, last_run_us), runs = runs + $6
WHERE schedule_id = $1 AND next_run_us = $2 AND revision = $3 AND NOT paused

-- name: pause_schedule
-- Stops a schedule that cannot run, and says why.
UPDATE schedules SET paused = TRUE, pause_reason = $2, next_run_us = NULL, updated_us = $3, revision = revision + 1
WHERE schedule_id = $1

-- name: count_run
-- A schedule was run by hand.
UPDATE schedules SET last_run_us = $2, runs = runs + 1 WHERE schedule_id = $1

-- name: record_run
-- What became of a due time; one that was refused may still be run or missed.
INSERT INTO schedule_runs (schedule_id, due_us, fired_us, manual, outcome, turn_id, missed, until_us, error)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (schedule_id, due_us) DO UPDATE SET fired_us = excluded.fired_us, manual = excluded.manual,
    outcome = excluded.outcome, turn_id = excluded.turn_id, missed = excluded.missed, until_us = excluded.until_us,
    error = excluded.error
WHERE schedule_runs.outcome = 'refused'

-- name: list_runs
-- A page of a schedule's history, the newest due time first, before a cursor; with the tasks, if they are still there.
SELECT r.schedule_id, r.due_us, r.fired_us, r.manual, r.outcome, r.turn_id, r.missed, r.until_us, r.error,
    t.session_id, CASE WHEN t.status = 'queued' AND t.waits_for IS NOT NULL THEN 'waiting' ELSE t.status END AS status
FROM schedule_runs r LEFT JOIN tasks t ON t.turn_id = r.turn_id
WHERE r.schedule_id = $1 AND r.due_us < $2
ORDER BY r.due_us DESC LIMIT $3

-- name: queued_runs
-- Tasks of schedules that have not started although their sessions have an owner.
SELECT {task}, (SELECT s.owner_id FROM sessions s WHERE s.session_id = tasks.session_id) AS owner_id FROM tasks
WHERE status = 'queued' AND turn_id IN (SELECT r.turn_id FROM schedule_runs r WHERE r.fired_us >= $1)
    AND EXISTS (SELECT 1 FROM sessions s WHERE s.session_id = tasks.session_id AND s.owner_id IS NOT NULL)

-- name: delete_old_runs
-- Retention of history.
DELETE FROM schedule_runs WHERE (schedule_id, due_us) IN (
    SELECT schedule_id, due_us FROM schedule_runs WHERE fired_us < $1 ORDER BY fired_us LIMIT $2)
