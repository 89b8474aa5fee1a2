-- Schedules: tasks that come again, and what became of each due time. Who advances `next_run_us` enqueues the task, in
-- one transaction. A paused or finished schedule has none.

CREATE TABLE schedules (
    schedule_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    expression TEXT NOT NULL,
    zone TEXT NOT NULL,
    anchor_us BIGINT NOT NULL,
    request TEXT NOT NULL,
    session_id TEXT,
    missed TEXT NOT NULL,
    grace_us BIGINT NOT NULL,
    paused BOOLEAN NOT NULL,
    pause_reason TEXT,
    next_run_us BIGINT,
    last_run_us BIGINT,
    runs BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE INDEX schedules_due ON schedules (next_run_us, schedule_id) WHERE NOT paused;
CREATE INDEX schedules_by_user ON schedules (user_id, created_us, schedule_id);
CREATE INDEX schedules_by_age ON schedules (created_us, schedule_id);

CREATE TABLE schedule_runs (
    schedule_id TEXT NOT NULL,
    due_us BIGINT NOT NULL,
    fired_us BIGINT NOT NULL,
    manual BOOLEAN NOT NULL,
    outcome TEXT NOT NULL,
    turn_id TEXT,
    missed BIGINT NOT NULL,
    until_us BIGINT,
    error TEXT,
    PRIMARY KEY (schedule_id, due_us)
);

CREATE INDEX schedule_runs_by_age ON schedule_runs (fired_us);
