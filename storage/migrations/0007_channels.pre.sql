-- Messages from messaging providers: accounts kept by the API (secrets sealed), which message came already, which
-- session a chat has now, and how fast an account's messages may start.

CREATE TABLE channel_accounts (
    name TEXT PRIMARY KEY,
    channel TEXT NOT NULL,
    settings TEXT NOT NULL,
    secrets TEXT,
    created_us BIGINT NOT NULL,
    updated_us BIGINT NOT NULL
);

CREATE TABLE channel_messages (
    channel TEXT NOT NULL,
    account TEXT NOT NULL,
    message_id TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    received_us BIGINT NOT NULL,
    PRIMARY KEY (channel, account, message_id)
);

CREATE INDEX channel_messages_by_age ON channel_messages (received_us);

CREATE TABLE channel_peers (
    channel TEXT NOT NULL,
    account TEXT NOT NULL,
    peer_key TEXT NOT NULL,
    session_id TEXT NOT NULL,
    updated_us BIGINT NOT NULL,
    PRIMARY KEY (channel, account, peer_key)
);

CREATE INDEX channel_peers_by_session ON channel_peers (session_id);
CREATE INDEX channel_peers_by_use ON channel_peers (channel, account, updated_us);

CREATE TABLE channel_paces (
    channel TEXT NOT NULL,
    account TEXT NOT NULL,
    next_us BIGINT NOT NULL,
    PRIMARY KEY (channel, account)
);
