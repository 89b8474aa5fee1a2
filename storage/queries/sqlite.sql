-- What must differ on SQLite. Each override says why.

-- fragment: now_us
-- The database's time in microseconds (SQLite knows milliseconds; unixepoch('subsec') needs a newer one).
(CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000)

-- fragment: greatest
-- The greater of two values.
max

-- fragment: least
-- The lesser of two values.
min

-- fragment: for_update
-- Nothing: a transaction that writes holds SQLite's only write lock from its start.

-- fragment: data_bytes
-- The size of an event's data.
length(CAST(data AS BLOB))

-- fragment: results
-- What became of attempts, as one JSON list.
(SELECT json_extract(value, '$.delivery_id') AS delivery_id, json_extract(value, '$.attempt') AS attempt,
    json_extract(value, '$.state') AS state, json_extract(value, '$.due_us') AS due_us,
    json_extract(value, '$.counted') AS counted, json_extract(value, '$.outcome') AS outcome,
    json_extract(value, '$.status') AS status, json_extract(value, '$.code') AS code,
    json_extract(value, '$.detail') AS detail, json_extract(value, '$.finished_us') AS finished_us FROM json_each($1))

-- fragment: texts
-- Texts, as one JSON list.
(SELECT value FROM json_each($1))

-- name: delete_events
-- Retention: removes old events of some kinds, a bounded number of rows at a time.
-- why: SQLite takes the list of kinds as JSON, and rows are found by rowid.
DELETE FROM events WHERE rowid IN (
    SELECT rowid FROM events
    WHERE kind IN (SELECT value FROM json_each($1)) AND created_us < $2 LIMIT $3)

-- name: take_lock
-- Waits until no other transaction holds the lock with this number; it ends with the transaction.
-- why: a transaction that writes already holds SQLite's only write lock.
SELECT $1 AS locked

-- name: fence_sessions
-- The sessions whose epochs still own them, out of a list of [session_id, epoch].
-- why: SQLite takes the list as JSON and needs no row locks; on Postgres this is part of append_events.
SELECT s.session_id FROM json_each($1) f JOIN sessions s ON s.session_id = json_extract(f.value, '$[0]')
WHERE s.epoch = json_extract(f.value, '$[1]') AND s.owner_id IS NOT NULL
