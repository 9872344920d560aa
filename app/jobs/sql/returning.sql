-- The statements of app/jobs/records/returning.py. A statement starts at its `-- name:` line.

-- name: begin_delivery
UPDATE deliveries SET state = 'sending', attempts = deliveries.attempts + 1, last_attempt_at = clock_timestamp(),
                      next_attempt_at = NULL
FROM results
WHERE results.job_id = deliveries.job_id AND results.digest = deliveries.digest
  AND deliveries.job_id = %(job_id)s AND deliveries.digest = %(digest)s AND destination = %(destination)s
  AND state IN ('waiting', 'sending')
RETURNING deliveries.attempts, results.path, results.sop_instance_uid;

-- name: postpone_delivery
UPDATE deliveries SET state = 'waiting', code = %(code)s, reason = %(reason)s,
                      next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s
  AND attempts = %(attempts)s AND state = 'sending'
RETURNING next_attempt_at;

-- name: end_delivery
UPDATE deliveries SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s
  AND attempts = %(attempts)s AND (state = 'sending' OR state = 'waiting' AND %(to_state)s = 'replaced')
RETURNING 1;

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
SELECT count(*) AS open FROM deliveries WHERE job_id = %s AND state IN ('waiting', 'sending');

-- name: failed_deliveries
-- A rejection note that was refused leaves the job as it is.
SELECT DISTINCT destination FROM deliveries JOIN results USING (job_id, digest)
WHERE job_id = %s AND state = 'failed' AND kind <> 'rejection-note' ORDER BY destination;

-- name: open_destinations
SELECT DISTINCT destination FROM deliveries WHERE state IN ('waiting', 'sending');

-- name: close_job
UPDATE jobs SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND state = 'delivering'
RETURNING 1;
