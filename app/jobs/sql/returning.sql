-- The statements of app/jobs/records/returning.py. A statement starts at its `-- name:` line.

-- name: begin_delivery
-- What was being sent when its sender died is begun anew: the turn (turns.sql) has one holder.
UPDATE deliveries SET state = 'sending', attempts = deliveries.attempts + 1, tries = deliveries.tries + 1,
                      last_attempt_at = clock_timestamp(), next_attempt_at = NULL, is_unknown = true
FROM results, (
    SELECT is_unknown FROM deliveries
    WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s
      AND state IN ('waiting', 'sending')
    FOR UPDATE
) AS before
WHERE results.job_id = deliveries.job_id AND results.digest = deliveries.digest
  AND deliveries.job_id = %(job_id)s AND deliveries.digest = %(digest)s AND destination = %(destination)s
  AND NOT EXISTS (SELECT FROM jobs WHERE id = %(job_id)s AND jobs.state = 'cancelled')
RETURNING deliveries.attempts, results.path, results.sop_class_uid, results.sop_instance_uid,
          results.series_instance_uid, before.is_unknown AS was_unknown,
          results.kind <> 'rejection-note' AND EXISTS (
              SELECT FROM withdrawals WHERE withdrawals.job_id = deliveries.job_id
                                        AND withdrawals.destination = deliveries.destination) AS is_withdrawn;

-- name: drop_delivery
-- Of a cancelled job: whether one that was being sent when its worker was lost has arrived is not known.
UPDATE deliveries SET state = 'cancelled', code = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s AND state IN ('waiting', 'sending')
  AND EXISTS (SELECT FROM jobs WHERE id = %(job_id)s AND jobs.state = 'cancelled');

-- name: postpone_delivery
-- Of a job that was cancelled meanwhile there is no next attempt.
UPDATE deliveries SET code = %(code)s, reason = %(reason)s, is_unknown = %(is_unknown)s,
                      tries = tries - CASE WHEN %(counts)s THEN 0 ELSE 1 END,
                      state = CASE WHEN %(job_state)s = 'cancelled' THEN 'cancelled' ELSE 'waiting' END,
                      finished_at = CASE WHEN %(job_state)s = 'cancelled' THEN clock_timestamp() END,
                      next_attempt_at = CASE WHEN %(job_state)s <> 'cancelled'
                                        THEN clock_timestamp() + make_interval(secs => %(seconds)s) END
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s
  AND attempts = %(attempts)s AND state = 'sending'
RETURNING next_attempt_at;

-- name: end_delivery
UPDATE deliveries SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp(),
                      is_unknown = %(is_unknown)s AND %(to_state)s <> 'delivered'
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s
  AND attempts = %(attempts)s AND (state = 'sending' OR state = 'waiting' AND %(to_state)s = 'replaced')
RETURNING 1;

-- name: begin_committing
-- Once all that a job sends to a destination has arrived; what it refused for good does not hold up the rest. What was
-- withdrawn there nobody is to keep. What was said of it before it came says nothing of its commitment.
UPDATE deliveries SET state = 'committing', code = '', next_attempt_at = NULL
WHERE job_id = %(job_id)s AND destination = ANY(%(destinations)s) AND state = 'delivered'
  AND NOT EXISTS (
      SELECT 1 FROM deliveries AS others
      WHERE others.job_id = %(job_id)s AND others.destination = deliveries.destination
        AND others.state IN ('waiting', 'sending')
  )
  AND (digest IN (SELECT digest FROM results WHERE job_id = %(job_id)s AND kind = 'rejection-note')
       OR NOT EXISTS (SELECT FROM withdrawals
                      WHERE job_id = %(job_id)s AND withdrawals.destination = deliveries.destination))
RETURNING deliveries.destination;

-- name: keep_profile
INSERT INTO destination_profiles (destination, address, accepted) VALUES (%(destination)s, %(address)s, %(accepted)s)
ON CONFLICT (destination) DO UPDATE
SET address = EXCLUDED.address, accepted = EXCLUDED.accepted, asked_at = clock_timestamp();

-- name: profiles
SELECT * FROM destination_profiles ORDER BY destination;

-- name: lock_job
-- Two deliveries of one job that end at once take turns here, so that exactly one of them is the last.
SELECT state FROM jobs WHERE id = %s FOR UPDATE;

-- name: open_deliveries
SELECT count(*) AS open FROM deliveries WHERE job_id = %s AND state IN ('waiting', 'sending', 'committing');

-- name: failed_deliveries
-- A rejection note that was refused leaves the job as it is, and so does what was withdrawn: it is wanted no more.
SELECT DISTINCT deliveries.destination FROM deliveries JOIN results USING (job_id, digest)
LEFT JOIN withdrawals USING (job_id, destination)
WHERE job_id = %s AND state = 'failed' AND kind <> 'rejection-note' AND withdrawals.reason IS NULL
ORDER BY deliveries.destination;

-- name: close_job
UPDATE jobs SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND state = 'delivering'
RETURNING 1;
