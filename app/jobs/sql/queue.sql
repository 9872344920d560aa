-- The statement of app/jobs/queue.py. A statement starts at its `-- name:` line.

-- name: priority_of
-- The lock makes a change of the priority wait until what is put into the queue now can be seen.
SELECT priority FROM jobs WHERE id = %s FOR SHARE;
