-- The outbox: what is to be sent to the world, recorded with what it tells of, and sent at least once afterwards.
-- A route is one account of one channel; a line is one peer of a route, sent in the order of `seq`. `ready` is the
-- first of its line while nobody sends it. `open` counts those of a line that are not finished: whoever adds to a line
-- or takes from it holds the line's row.

CREATE TABLE outbox_lines (
    line TEXT PRIMARY KEY,
    last_seq BIGINT NOT NULL,
    open BIGINT NOT NULL,
    used_us BIGINT NOT NULL
);

CREATE INDEX outbox_lines_unused ON outbox_lines (used_us) WHERE open = 0;

CREATE TABLE outbox (
    delivery_id TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    account TEXT NOT NULL,
    peer TEXT NOT NULL,
    route TEXT NOT NULL,
    line TEXT NOT NULL,
    seq BIGINT NOT NULL,
    state TEXT NOT NULL,
    ready BOOLEAN NOT NULL,
    due_us BIGINT NOT NULL,
    body TEXT NOT NULL,
    turn_id TEXT,
    attempt BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    owner_id TEXT,
    claimed_us BIGINT,
    first_us BIGINT,
    code TEXT,
    created_us BIGINT NOT NULL,
    finished_us BIGINT
);

CREATE INDEX outbox_ready ON outbox (route, due_us, delivery_id) WHERE ready;
CREATE INDEX outbox_in_line ON outbox (line, seq) WHERE state IN ('pending', 'sending');
CREATE INDEX outbox_sending ON outbox (owner_id) WHERE state = 'sending';
CREATE INDEX outbox_open ON outbox (channel, state, created_us) WHERE state IN ('pending', 'sending', 'dead');
CREATE INDEX outbox_by_state ON outbox (state, created_us, (delivery_id || ''));
CREATE INDEX outbox_by_age ON outbox (created_us, (delivery_id || ''));
CREATE INDEX outbox_finished ON outbox (finished_us) WHERE state IN ('sent', 'dropped');

CREATE TABLE outbox_attempts (
    delivery_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    status BIGINT,
    code TEXT,
    detail TEXT,
    started_us BIGINT,
    finished_us BIGINT NOT NULL,
    PRIMARY KEY (delivery_id, attempt)
);
