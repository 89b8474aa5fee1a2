-- What the release before 0006 used instead of tasks_ready_first, tasks_waiting and tasks_to_come.

DROP INDEX tasks_ready;
DROP INDEX tasks_queued_by_user;
DROP INDEX tasks_due;
