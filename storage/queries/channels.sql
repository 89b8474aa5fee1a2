-- Messages from messaging providers, one text for both databases (see shared.sql for how it is written).

-- name: put_channel_account
-- Adds an account or changes it.
INSERT INTO channel_accounts (name, channel, settings, secrets, created_us, updated_us) VALUES ($1, $2, $3, $4, $5, $5)
ON CONFLICT (name) DO UPDATE SET channel = excluded.channel, settings = excluded.settings, secrets = excluded.secrets,
    updated_us = excluded.updated_us

-- name: delete_channel_account
-- Removes an account; what came through it stays.
DELETE FROM channel_accounts WHERE name = $1

-- name: list_channel_accounts
-- Every account by its name.
SELECT name, channel, settings, secrets, created_us, updated_us FROM channel_accounts ORDER BY name

-- name: record_channel_message
-- Records that a message came; nothing if it came before. Whoever brings the same one meanwhile waits for the answer.
INSERT INTO channel_messages (channel, account, message_id, turn_id, received_us) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (channel, account, message_id) DO NOTHING

-- name: find_channel_message
-- The turn that a message was recorded with.
SELECT turn_id FROM channel_messages WHERE channel = $1 AND account = $2 AND message_id = $3

-- name: delete_channel_messages
-- Retention: forgets messages that came before a time.
DELETE FROM channel_messages WHERE received_us < $1

-- name: claim_channel_peer
-- The session that a chat has, or the given one if it has none; the row is locked for the rest of the transaction.
INSERT INTO channel_peers (channel, account, peer_key, session_id, updated_us) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (channel, account, peer_key) DO UPDATE SET updated_us = excluded.updated_us
RETURNING session_id

-- name: set_channel_peer
-- Gives a chat another session.
UPDATE channel_peers SET session_id = $4 WHERE channel = $1 AND account = $2 AND peer_key = $3

-- name: get_channel_peer
-- The session that a chat has.
SELECT session_id FROM channel_peers WHERE channel = $1 AND account = $2 AND peer_key = $3

-- name: delete_channel_peer
-- A chat has no session any more: its next message begins one.
DELETE FROM channel_peers WHERE channel = $1 AND account = $2 AND peer_key = $3

-- name: delete_session_peers
-- A deleted session is no chat's any more.
DELETE FROM channel_peers WHERE session_id = $1

-- name: take_channel_slot
-- When the account's next message after this one may start at the pace of its limit (the row is locked).
INSERT INTO channel_paces (channel, account, next_us) VALUES ($1, $2, $3)
ON CONFLICT (channel, account) DO UPDATE SET next_us = {greatest}(channel_paces.next_us, $4) + $5
RETURNING next_us

-- name: count_channel_turns
-- How many turns of an account have not ended, of chats that wrote lately; counted up to a bound.
SELECT count(*) AS turns FROM (
    SELECT 1 FROM channel_peers p JOIN tasks t ON t.session_id = p.session_id
    WHERE p.channel = $1 AND p.account = $2 AND p.updated_us >= $3 AND t.status IN ('queued', 'running') LIMIT $4
) AS counted
