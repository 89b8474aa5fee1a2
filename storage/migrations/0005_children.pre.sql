-- Child tasks: who started them and how deep they are; what a turn waits for (`waits_for`), and how that is shown to
-- people (`waiting`, JSON). A turn that waits is queued, keeps its place in its session, and has the end of its patience in run_at_us.

ALTER TABLE tasks ADD COLUMN parent_id TEXT;
ALTER TABLE tasks ADD COLUMN depth BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN waits_for TEXT;
ALTER TABLE tasks ADD COLUMN waiting TEXT;

CREATE INDEX tasks_children ON tasks (parent_id, created_us) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_open_children ON tasks (parent_id) WHERE parent_id IS NOT NULL AND status IN ('queued', 'running');
CREATE INDEX tasks_suspended ON tasks (turn_id) WHERE waits_for IS NOT NULL AND status = 'queued';
