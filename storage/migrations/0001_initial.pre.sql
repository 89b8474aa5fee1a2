-- One text for Postgres and SQLite: JSON is TEXT, times are BIGINT microseconds (UTC).
-- Rows of a session carry no foreign key: every write locks the session's row first and deletion removes them
-- in the same transaction, so a key would only cost one look-up per event.

CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    username_key TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    email TEXT,
    is_admin BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL
);

CREATE INDEX users_admins ON users (user_id) WHERE is_admin;

CREATE TABLE tokens (
    token_hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    created_us BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);

CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_expiry ON tokens (expires_us);

CREATE TABLE tickets (
    ticket_hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    token_hash TEXT NOT NULL REFERENCES tokens (token_hash) ON DELETE CASCADE,
    expires_us BIGINT NOT NULL
);

CREATE INDEX tickets_by_token ON tickets (token_hash);
CREATE INDEX tickets_by_user ON tickets (user_id);
CREATE INDEX tickets_by_expiry ON tickets (expires_us);

CREATE TABLE owners (
    owner_id TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    lease_until_us BIGINT NOT NULL
);

CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    title TEXT NOT NULL,
    agent_id TEXT,
    archived BOOLEAN NOT NULL,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL,
    opened_us BIGINT,
    owner_id TEXT,
    epoch BIGINT NOT NULL,
    reserved_seq BIGINT NOT NULL,
    message_count BIGINT NOT NULL
);

CREATE INDEX sessions_by_user ON sessions (user_id, created_us, session_id);
CREATE INDEX sessions_by_age ON sessions (created_us, session_id);
CREATE INDEX sessions_by_owner ON sessions (owner_id) WHERE owner_id IS NOT NULL;

CREATE TABLE messages (
    session_id TEXT NOT NULL,
    position BIGINT NOT NULL,
    turn_id TEXT NOT NULL,
    round BIGINT NOT NULL,
    role TEXT NOT NULL,
    body TEXT NOT NULL,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (session_id, position)
);

CREATE TABLE events (
    session_id TEXT NOT NULL,
    first_seq BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    turn_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    data TEXT NOT NULL,
    parts TEXT,
    created_us BIGINT NOT NULL,
    PRIMARY KEY (session_id, seq)
);

CREATE INDEX events_by_kind ON events (kind, created_us);

CREATE TABLE tasks (
    turn_id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    crashes BIGINT NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    request TEXT NOT NULL,
    idempotency_key TEXT,
    answer TEXT,
    error TEXT,
    usage TEXT,
    stop_reason TEXT,
    last_round BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    started_us BIGINT,
    finished_us BIGINT
);

CREATE UNIQUE INDEX tasks_idempotent ON tasks (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX tasks_one_running ON tasks (session_id) WHERE status = 'running';
CREATE INDEX tasks_active ON tasks (session_id, created_us) WHERE status IN ('queued', 'running');
CREATE INDEX tasks_by_session ON tasks (session_id);
CREATE INDEX tasks_keys_by_age ON tasks (finished_us) WHERE idempotency_key IS NOT NULL;
