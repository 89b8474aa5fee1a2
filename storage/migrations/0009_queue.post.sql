-- What the release before 0006 used instead of its indexes. IF EXISTS: it has been applied as 0006_queue.post, too.

DROP INDEX IF EXISTS tasks_ready;
DROP INDEX IF EXISTS tasks_queued_by_user;
DROP INDEX IF EXISTS tasks_due;
DROP INDEX IF EXISTS tasks_by_user;
DROP INDEX IF EXISTS tasks_by_age;
DROP INDEX IF EXISTS sessions_by_user;
DROP INDEX IF EXISTS sessions_by_age;
