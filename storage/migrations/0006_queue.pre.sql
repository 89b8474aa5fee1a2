-- Each attempt has a start of its own; a task whose process died is `suspect`: pools run one of those at a time.
-- Each index has a condition, or an expression, that only its own statements write (status || '', created_us + 0), so that
-- there is nothing else to choose, whatever the statistics say when a statement is planned.

ALTER TABLE tasks ADD COLUMN attempt_started_us BIGINT;
ALTER TABLE tasks ADD COLUMN suspect BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE tasks SET attempt_started_us = started_us WHERE status = 'running';

CREATE INDEX tasks_ready_first ON tasks (priority DESC, rank, turn_id) WHERE ready AND NOT suspect;
CREATE INDEX tasks_ready_suspect ON tasks (priority DESC, rank, turn_id) WHERE ready AND suspect;
CREATE INDEX tasks_waiting ON tasks (user_id, rank) WHERE status || '' = 'queued';
CREATE INDEX tasks_to_come ON tasks (run_at_us) WHERE status || '' = 'queued' AND run_at_us IS NOT NULL;
CREATE INDEX tasks_of_user ON tasks (user_id, created_us, (turn_id || ''));
CREATE INDEX tasks_by_creation ON tasks ((created_us + 0), (turn_id || ''));
CREATE INDEX sessions_of_user ON sessions (user_id, created_us, (session_id || ''));
CREATE INDEX sessions_by_creation ON sessions (created_us, (session_id || ''));
