-- The statements of app/jobs/records/pausing.py. A statement starts at its `-- name:` line.
-- Tasks of what is paused wait in a queue of their own that nobody works on, `paused-` before the name of theirs: they
-- keep their number, and so their place.

-- name: pauses
SELECT kind, name, person, paused_at FROM pauses ORDER BY kind, name;

-- name: has_workers
-- By the lock that each of their processes holds (`WORKERS` of app/jobs/presence.py), from before its first heartbeat on.
SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = 1279872343
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS found;

-- name: pause
INSERT INTO pauses (kind, name, person) VALUES (%(kind)s, %(name)s, %(person)s) ON CONFLICT DO NOTHING;

-- name: resume
DELETE FROM pauses WHERE kind = %(kind)s AND name = %(name)s;

-- name: park
UPDATE procrastinate_jobs AS task SET queue_name = 'paused-' || queue_name
WHERE status = 'todo' AND task_name IN ('segment', 'deliver', 'turn') AND NOT starts_with(queue_name, 'paused-')
  AND EXISTS (SELECT FROM pauses WHERE
      kind = 'everything'
      OR kind = 'destination' AND task_name IN ('deliver', 'turn') AND name = task.args ->> 'destination'
      OR kind = 'pipeline' AND task_name = 'segment'
         AND name = (SELECT pipeline FROM jobs WHERE id = (task.args ->> 'job_id')::uuid));

-- name: unpark
UPDATE procrastinate_jobs AS task SET queue_name = substr(queue_name, length('paused-') + 1)
WHERE status = 'todo' AND starts_with(queue_name, 'paused-')
  AND NOT EXISTS (SELECT FROM pauses WHERE
      kind = 'everything'
      OR kind = 'destination' AND task_name IN ('deliver', 'turn') AND name = task.args ->> 'destination'
      OR kind = 'pipeline' AND task_name = 'segment'
         AND name = (SELECT pipeline FROM jobs WHERE id = (task.args ->> 'job_id')::uuid));

-- name: is_paused
SELECT EXISTS (SELECT FROM pauses WHERE
    kind = 'everything'
    OR kind = 'pipeline' AND name = (SELECT pipeline FROM jobs WHERE id = %(job_id)s)) AS paused;

-- name: is_destination_paused
SELECT EXISTS (
    SELECT FROM pauses WHERE kind = 'everything' OR kind = 'destination' AND name = %s
) AS paused;

-- name: work
-- Objects that wait for their destination's next window, or for a person, wait too. So does what was being sent where nobody
-- has the turn any more: its sender died.
WITH objects AS (
    SELECT deliveries.state = 'sending' AND destination_windows.holder IS NOT NULL
           AND coalesce(destination_windows.leased_until > clock_timestamp(), false) AS is_sent
    FROM deliveries LEFT JOIN destination_windows USING (destination)
    WHERE deliveries.state IN ('waiting', 'sending', 'committing')
)
SELECT count(*) FILTER (WHERE status = 'doing' AND task_name = 'segment') AS graphs,
       (SELECT count(*) FROM objects WHERE is_sent) AS sendings,
       count(*) FILTER (WHERE status = 'todo' AND task_name = 'segment') AS graphs_waiting,
       (SELECT count(*) FROM objects WHERE NOT is_sent) AS sendings_waiting
FROM procrastinate_jobs;

-- name: job_counts
SELECT state, count(*) AS number FROM jobs GROUP BY state;
