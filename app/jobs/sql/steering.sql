-- The statements of app/jobs/records/steering.py. A statement starts at its `-- name:` line.
-- The queue's own table is read and written here too: its interface can neither take back nor re-prioritise what waits.

-- name: lock_life
SELECT state, code, cancelled_in FROM jobs WHERE id = %s FOR UPDATE;

-- name: cancel_job
UPDATE jobs SET state = 'cancelled', cancelled_in = state, code = 'cancelled', reason = %(reason)s,
                finished_at = clock_timestamp()
WHERE id = %(id)s
RETURNING 1;

-- name: cancel_deliveries
-- One that is being sent ends as it ends.
UPDATE deliveries SET state = 'cancelled', code = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
WHERE job_id = %s AND state IN ('held', 'waiting');

-- name: drop_tasks
-- Of a cancelled job, so that a replay's tasks are its only ones.
DELETE FROM procrastinate_jobs AS task
WHERE status = 'todo' AND args ->> 'job_id' = %(id)s::text
  AND (task_name = 'segment' OR task_name = 'deliver' AND EXISTS (
      SELECT FROM deliveries
      WHERE job_id = %(id)s AND digest = task.args ->> 'digest' AND destination = task.args ->> 'destination'
        AND state = 'cancelled'));

-- name: replay_job
UPDATE jobs SET state = %(to_state)s, tries = 0, code = '', reason = '', cancelled_in = '', finished_at = NULL
WHERE id = %(id)s
RETURNING 1;

-- name: replay_deliveries
-- Their attempts are fences and go on counting; those before do not count against the destination's maximum. What was
-- withdrawn from a destination does not go there any more; the note that says so may.
UPDATE deliveries SET state = %(to_state)s, tries = 0, commitment_rounds = 0, code = '', reason = '',
                      created_at = clock_timestamp(), next_attempt_at = NULL, finished_at = NULL
WHERE job_id = %(id)s AND state IN ('failed', 'cancelled')
  AND (digest IN (SELECT digest FROM results WHERE job_id = %(id)s AND kind = 'rejection-note')
       OR NOT EXISTS (SELECT FROM withdrawals WHERE job_id = %(id)s AND withdrawals.destination = deliveries.destination))
RETURNING digest, destination;

-- name: replayable_jobs
-- One whose failed deliveries were withdrawn since has nothing to send.
SELECT id FROM jobs
WHERE state = 'dead-letter' OR state = 'failed' AND code IN ('not-delivered', 'not-committed') AND EXISTS (
    SELECT FROM deliveries LEFT JOIN withdrawals USING (job_id, destination)
    WHERE job_id = jobs.id AND deliveries.state IN ('failed', 'cancelled') AND withdrawals.job_id IS NULL)
ORDER BY created_at;

-- name: prioritise_job
UPDATE jobs SET priority = %(priority)s WHERE id = %(id)s RETURNING 1;

-- name: prioritise_tasks
-- Those that run too: they may be put back.
UPDATE procrastinate_jobs SET priority = %(priority)s
WHERE status IN ('todo', 'doing') AND task_name IN ('segment', 'deliver') AND args ->> 'job_id' = %(id)s::text;

-- name: waiting_graph_queues
-- What is paused has a queue of its own, whatever that says.
SELECT DISTINCT queue_name AS queue FROM procrastinate_jobs
WHERE status = 'todo' AND task_name = 'segment' AND NOT starts_with(queue_name, 'paused-');

-- name: requeue_graphs
-- The settings may have changed while tasks waited: each to the queue of its pipeline now, or to the one that all share.
UPDATE procrastinate_jobs AS task
SET queue_name = CASE WHEN starts_with(task.queue_name, 'paused-') THEN 'paused-' ELSE '' END
                 || coalesce(wanted.queue, %(otherwise)s)
FROM jobs LEFT JOIN unnest(%(pipelines)s::text[], %(queues)s::text[]) AS wanted (pipeline, queue) USING (pipeline)
WHERE task.task_name = 'segment' AND task.status IN ('todo', 'doing') AND jobs.id = (task.args ->> 'job_id')::uuid
  AND (%(waiting_in)s::text[] IS NULL OR task.queue_name = ANY(%(waiting_in)s));

-- name: take_up_tasks
UPDATE procrastinate_jobs SET queue_name = %(queue)s, scheduled_at = NULL
WHERE queue_name = %(given_up)s AND status = 'todo'
RETURNING task_name;

-- name: is_current
SELECT 1 FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running';
