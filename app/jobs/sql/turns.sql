-- The statements of app/jobs/records/turns.py. A statement starts at its `-- name:` line.

-- name: make_window
INSERT INTO destination_windows (destination, address) VALUES (%(destination)s, %(address)s) ON CONFLICT DO NOTHING;

-- name: lock_window
-- Whoever wants the turn and whoever gives it up meet here: what came to wait before the one asked is seen by the other.
SELECT address <> %(address)s AS is_other,
       coalesce(next_attempt_at > clock_timestamp(), false) AS is_closed,
       holder IS NOT NULL AND holder <> %(holder)s AND coalesce(leased_until > clock_timestamp(), false) AS is_taken
FROM destination_windows WHERE destination = %(destination)s
FOR UPDATE;

-- name: reset_window
UPDATE destination_windows
SET address = %(address)s, failures = 0, down_since = NULL, next_attempt_at = NULL, code = '', reason = ''
WHERE destination = %(destination)s;

-- name: take_turn
UPDATE destination_windows SET holder = %(holder)s, turn = turn + 1,
                               leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE destination = %(destination)s
RETURNING turn, failures;

-- name: keep_turn
UPDATE destination_windows SET leased_until = clock_timestamp() + make_interval(secs => %(lease_seconds)s)
WHERE destination = %(destination)s AND turn = %(turn)s AND holder IS NOT NULL
RETURNING 1;

-- name: lock_turn
SELECT 1 FROM destination_windows WHERE destination = %(destination)s AND turn = %(turn)s AND holder IS NOT NULL
FOR UPDATE;

-- name: give_up_turn
UPDATE destination_windows SET holder = NULL, leased_until = NULL
WHERE destination = %(destination)s AND turn = %(turn)s;

-- name: close_window
UPDATE destination_windows
SET failures = failures + 1, down_since = coalesce(down_since, clock_timestamp()), code = %(code)s, reason = %(reason)s,
    next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s), holder = NULL, leased_until = NULL
WHERE destination = %(destination)s AND turn = %(turn)s AND holder IS NOT NULL
RETURNING next_attempt_at;

-- name: open_window
UPDATE destination_windows SET failures = 0, down_since = NULL, next_attempt_at = NULL, code = '', reason = ''
WHERE destination = %(destination)s AND turn = %(turn)s AND holder IS NOT NULL
RETURNING 1;

-- name: closed_window
-- One that is down is left alone past its window's end too, where a turn is about to try it or tries it now. Where
-- nothing is due, or it is paused, nobody does.
SELECT 1 AS closed FROM destination_windows
WHERE destination = %(destination)s AND address = %(address)s AND (
    next_attempt_at > clock_timestamp()
    OR down_since IS NOT NULL AND (
        holder IS NOT NULL AND coalesce(leased_until > clock_timestamp(), false)
        OR EXISTS (
            SELECT 1 FROM deliveries
            WHERE deliveries.destination = destination_windows.destination
              AND state IN ('waiting', 'sending', 'committing')
              AND coalesce(deliveries.next_attempt_at <= clock_timestamp(), true)
        ) AND NOT EXISTS (
            SELECT 1 FROM pauses WHERE kind = 'everything'
                                    OR kind = 'destination' AND name = destination_windows.destination
        )
    )
);

-- name: windows
SELECT destination, address, failures, down_since, next_attempt_at, code, reason FROM destination_windows;

-- name: due_deliveries
-- Urgent jobs first, then what was tried least. Where the destination did not just take something, what was tried least
-- of all stands before them: app/jobs/delivering.py says why.
SELECT job_id, digest, destination, path, is_asked
FROM (
    SELECT deliveries.job_id, deliveries.digest, deliveries.destination, results.path,
           -- what a destination did not commit itself to is sent again, whether or not it is there
           deliveries.is_unknown AND deliveries.code <> 'not-told'
               AND NOT starts_with(deliveries.code, 'commitment-') AS is_asked,
           jobs.priority, deliveries.tries, deliveries.created_at,
           row_number() OVER (
               ORDER BY deliveries.tries, jobs.priority DESC, deliveries.created_at, deliveries.digest
           ) = 1 AS is_least_tried
    FROM deliveries JOIN jobs ON jobs.id = deliveries.job_id
    JOIN results ON results.job_id = deliveries.job_id AND results.digest = deliveries.digest
    WHERE deliveries.destination = %(destination)s AND deliveries.state IN ('waiting', 'sending')
      AND coalesce(deliveries.next_attempt_at <= clock_timestamp(), true)
) AS due
ORDER BY is_least_tried AND NOT %(has_taken)s DESC, priority DESC, tries, created_at, digest
LIMIT %(limit)s;

-- name: something_due
SELECT EXISTS (
    SELECT 1 FROM deliveries
    WHERE destination = %(destination)s AND state IN ('waiting', 'sending', 'committing')
      AND coalesce(next_attempt_at <= clock_timestamp(), true)
) AS is_due;

-- name: destinations_in_want
-- Where something is due that nobody attends to: a task that was to do it is gone.
SELECT DISTINCT deliveries.destination
FROM deliveries LEFT JOIN destination_windows USING (destination)
WHERE deliveries.state IN ('waiting', 'sending', 'committing')
  AND coalesce(deliveries.next_attempt_at <= clock_timestamp() - make_interval(secs => 30), true)
  AND coalesce(destination_windows.next_attempt_at <= clock_timestamp() - make_interval(secs => 30), true)
  AND coalesce(destination_windows.leased_until <= clock_timestamp(), true)
  AND NOT EXISTS (
      SELECT 1 FROM procrastinate_jobs AS task
      WHERE task.status = 'todo' AND task.task_name IN ('deliver', 'turn')
        AND task.args ->> 'destination' = deliveries.destination
        AND coalesce(task.scheduled_at <= clock_timestamp(), true)
  )
  AND NOT EXISTS (
      SELECT 1 FROM pauses WHERE kind = 'everything' OR kind = 'destination' AND name = deliveries.destination
  );

-- name: waiting_turns
-- What is paused has a queue of its own, whatever that says.
SELECT DISTINCT args ->> 'destination' AS destination, queue_name AS queue FROM procrastinate_jobs
WHERE status = 'todo' AND task_name IN ('deliver', 'turn') AND NOT starts_with(queue_name, 'paused-');

-- name: move_turns
UPDATE procrastinate_jobs SET queue_name = %(to_queue)s
WHERE status = 'todo' AND task_name IN ('deliver', 'turn') AND queue_name = %(queue)s
  AND args ->> 'destination' = %(destination)s;
