-- The task queue: what pools claim (`ready`), in which order (`priority`, then the fair `rank`), and when.
-- A task is `ready` only while nobody owns its session and it is the first in its session's line.

ALTER TABLE tasks ADD COLUMN origin TEXT NOT NULL DEFAULT 'message';
ALTER TABLE tasks ADD COLUMN priority BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN rank BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN ready BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE tasks ADD COLUMN run_at_us BIGINT;
ALTER TABLE tasks ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN max_attempts BIGINT NOT NULL DEFAULT 1;

CREATE INDEX tasks_ready ON tasks (priority DESC, rank, turn_id) WHERE ready;
CREATE INDEX tasks_due ON tasks (run_at_us) WHERE status = 'queued' AND run_at_us IS NOT NULL;
CREATE INDEX tasks_begun ON tasks (session_id) WHERE status IN ('queued', 'running') AND attempt > 0;
CREATE INDEX tasks_queued_by_user ON tasks (user_id, rank) WHERE status = 'queued';
CREATE INDEX tasks_by_user ON tasks (user_id, created_us, turn_id);
CREATE INDEX tasks_by_age ON tasks (created_us, turn_id);

CREATE TABLE task_attempts (
    turn_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    started_us BIGINT,
    finished_us BIGINT NOT NULL,
    PRIMARY KEY (turn_id, attempt)
);
