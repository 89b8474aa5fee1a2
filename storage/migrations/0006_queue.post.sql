-- What the release before 0006 used instead of its indexes.

DROP INDEX tasks_ready;
DROP INDEX tasks_queued_by_user;
DROP INDEX tasks_due;
DROP INDEX tasks_by_user;
DROP INDEX tasks_by_age;
DROP INDEX sessions_by_user;
DROP INDEX sessions_by_age;
