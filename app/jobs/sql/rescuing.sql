-- The statements of app/jobs/heartbeat.py and app/jobs/rescue.py. A statement starts at its `-- name:` line.
-- They read and write the queue's own tables: its interface can neither tell which heartbeats moved nor give a task that is
-- put back another number.

-- name: beat
-- Of workers that were taken for dead there is no row any more.
UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp() WHERE id = ANY(%s) RETURNING id;

-- name: other_workers
SELECT id, last_heartbeat FROM procrastinate_workers WHERE NOT id = ANY(%s);

-- name: unowned_tasks
-- Tasks that count as running and do not run: their worker is gone, or is one of these, that says it does not run them.
SELECT id FROM procrastinate_jobs
WHERE status = 'doing' AND NOT id = ANY(%(running)s) AND (worker_id IS NULL OR worker_id = ANY(%(own)s));

-- name: running_tasks
SELECT id FROM procrastinate_jobs WHERE status = 'doing';

-- name: end_silent_transactions
-- A process that was stopped in the midst of a transaction holds its locks, and a take-over would wait for them.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND state = 'idle in transaction'
  AND state_change < clock_timestamp() - make_interval(secs => %s);

-- name: lock_silent_worker
-- A heartbeat that comes now waits, and finds no row; one that came before keeps the worker.
SELECT 1 FROM procrastinate_workers WHERE id = %(worker)s AND last_heartbeat = %(seen)s FOR UPDATE;

-- name: tasks_of_worker
SELECT id FROM procrastinate_jobs WHERE status = 'doing' AND worker_id = %s;

-- name: forget_worker
DELETE FROM procrastinate_workers WHERE id = %s;

-- name: fence_attempts
-- From here on the attempt that was lost writes nothing, whether or not the next one has begun.
UPDATE jobs SET attempt = attempt + 1
FROM procrastinate_jobs AS task
WHERE task.id = ANY(%s) AND task.status = 'doing' AND task.task_name = 'segment'
  AND jobs.id = (task.args ->> 'job_id')::uuid AND jobs.state = 'running';

-- name: free_turns
-- Under its new number a task would wait for the lease of its old one; whoever had the turn writes nothing any more.
UPDATE destination_windows SET holder = NULL, leased_until = NULL
WHERE holder IN (SELECT 'task ' || lost FROM unnest(%s::bigint[]) AS lost);

-- name: put_back
-- Under a number of its own, so that a worker that was taken for dead can't end it. A negative one: it has waited longest,
-- and goes first among those of its priority.
WITH gone AS (
    DELETE FROM procrastinate_jobs WHERE id = ANY(%s) AND status = 'doing'
    RETURNING queue_name, task_name, priority, lock, queueing_lock, args, attempts
)
INSERT INTO procrastinate_jobs (id, queue_name, task_name, priority, lock, queueing_lock, args, attempts)
SELECT -nextval('procrastinate_jobs_id_seq'), queue_name, task_name, priority, lock, queueing_lock, args, attempts FROM gone
ON CONFLICT DO NOTHING
RETURNING task_name, queue_name, args ->> 'job_id';

-- name: bring_back
-- Tasks that a worker of another version gave up because it does not know them.
SELECT task_name, procrastinate_retry_job_v2(id, NULL, NULL, NULL, NULL) FROM procrastinate_jobs
WHERE status = 'failed' AND task_name = ANY(%s);

-- name: is_database_fresh
SELECT clock_timestamp() - pg_postmaster_start_time() < make_interval(secs => %s);
