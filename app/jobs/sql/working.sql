-- The statements of app/jobs/records/working.py. A statement starts at its `-- name:` line.

-- name: inputs_of_job
SELECT sop_instance_uid, digest, channel FROM job_inputs WHERE job_id = %s ORDER BY channel, sop_instance_uid, digest;

-- name: lock_begun_job
-- Before its task, as where that is put back (rescuing.sql): neither then waits for the other.
SELECT 1 FROM jobs WHERE id = %s FOR UPDATE;

-- name: begin_attempt
-- A job that counts as running has lost the attempt before: its worker was killed, or could not record its end. Who was
-- taken for dead between taking the task and this finds the task gone, and begins nothing.
UPDATE jobs SET attempt = attempt + 1, tries = tries + 1, state = 'running', started_at = clock_timestamp(),
                code = CASE WHEN state = 'running' THEN 'attempt-lost' ELSE code END,
                reason = CASE WHEN state = 'running'
                         THEN 'attempt ' || attempt || ' was lost with its worker' ELSE reason END,
                progress_step = '', progress_done = 0, progress_total = 0
WHERE id = %(id)s AND state IN ('queued', 'running')
  AND (%(task)s::bigint IS NULL
       OR EXISTS (SELECT FROM procrastinate_jobs WHERE id = %(task)s AND status = 'doing' FOR KEY SHARE))
RETURNING attempt, tries;

-- name: report_progress
-- Every write of an attempt names it: one that was overtaken writes nothing.
UPDATE jobs SET progress_step = %(step)s, progress_done = %(done)s, progress_total = %(total)s
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: release_attempt
UPDATE jobs SET state = 'queued', tries = tries - 1,
                code = CASE WHEN %(code)s <> '' THEN %(code)s ELSE code END,
                reason = CASE WHEN %(code)s <> '' THEN %(reason)s ELSE reason END
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: postpone_job
UPDATE jobs SET state = 'queued', code = %(code)s, reason = %(reason)s
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: end_attempt
UPDATE jobs SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: after_attempt
UPDATE jobs SET state = %(to_state)s, code = '', reason = '', flag = %(flag)s, flag_reason = %(flag_reason)s
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: insert_result
-- The notice of a job that was replayed and ended as before is the same object.
INSERT INTO results (job_id, digest, attempt, path, sop_class_uid, sop_instance_uid, series_instance_uid,
                     transfer_syntax_uid, role, kind)
VALUES (%(job_id)s, %(digest)s, %(attempt)s, %(path)s, %(sop_class_uid)s, %(sop_instance_uid)s,
        %(series_instance_uid)s, %(transfer_syntax_uid)s, %(role)s, %(kind)s)
ON CONFLICT (job_id, digest) DO NOTHING;

-- name: insert_finding
INSERT INTO findings (job_id, role, number, label, code, volume_ml)
VALUES (%(job_id)s, %(role)s, %(number)s, %(label)s, %(code)s, %(volume_ml)s);

-- name: insert_agreement
INSERT INTO agreement (job_id, number, label, dice, distance_mm, difference_ml, difference_percent, beyond)
VALUES (%(job_id)s, %(number)s, %(label)s, %(dice)s, %(distance_mm)s, %(difference_ml)s, %(difference_percent)s,
        %(beyond)s);

-- name: insert_note
INSERT INTO notes (job_id, number, code, policy, message)
VALUES (%(job_id)s, %(number)s, %(code)s, %(policy)s, %(message)s);

-- name: insert_delivery
-- A form that takes another one's place may be on its way already.
INSERT INTO deliveries (job_id, digest, destination, state) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING;

-- name: count_deliveries
-- What the account holds the job's deliveries to. Of a job that a program made which does not count there is no number.
UPDATE jobs SET deliveries_made = deliveries_made + %s WHERE id = %s;

-- name: insert_step
INSERT INTO steps (job_id, attempt, step, seconds) VALUES (%s, %s, %s, %s);

-- name: lock_held_job
-- Two decisions about one held job take turns here, and the second finds it decided.
SELECT 1 FROM jobs WHERE id = %s AND state = 'held' FOR UPDATE;

-- name: decide_held_job
UPDATE jobs SET state = %(to_state)s,
                finished_at = CASE WHEN %(to_state)s = 'discarded' THEN clock_timestamp() ELSE finished_at END
WHERE id = %(id)s AND state = 'held'
RETURNING 1;

-- name: decide_held_deliveries
-- The time of a delivery counts from the decision.
UPDATE deliveries SET state = %(to_state)s, created_at = clock_timestamp(),
                      finished_at = CASE WHEN %(to_state)s = 'discarded' THEN clock_timestamp() END
WHERE job_id = %(id)s AND state = 'held'
RETURNING digest, destination;
