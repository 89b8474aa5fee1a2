-- What people answered to turns that asked them and wait: one answer for each call of the tool.

CREATE TABLE task_replies (
    turn_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    body TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (turn_id, call_id)
);
