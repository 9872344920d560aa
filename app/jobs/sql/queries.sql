-- Every statement of app/jobs/records.py, in the order of a study's way. A statement starts at its `-- name:` line.

-- name: record_instance
-- One statement, one commit: the instance's row, and its series back to receiving. A known instance changes nothing;
-- content that comes after the decision makes a new revision of the series.
WITH fresh AS (
    INSERT INTO instances (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, series_instance_uid,
                           study_instance_uid, size_bytes, calling_ae_title, source_host)
    VALUES (%(sop_instance_uid)s, %(digest)s, %(sop_class_uid)s, %(transfer_syntax_uid)s, %(series_instance_uid)s,
            %(study_instance_uid)s, %(size_bytes)s, %(calling_ae_title)s, %(source_host)s)
    ON CONFLICT DO NOTHING
    RETURNING study_instance_uid, series_instance_uid, calling_ae_title
)
INSERT INTO series (study_instance_uid, series_instance_uid, state, calling_ae_title)
SELECT study_instance_uid, series_instance_uid, 'receiving', calling_ae_title FROM fresh
ON CONFLICT (study_instance_uid, series_instance_uid) DO UPDATE SET
    last_received_at = clock_timestamp(),
    calling_ae_title = EXCLUDED.calling_ae_title,
    revision = series.revision + CASE WHEN series.state IN ('receiving', 'waiting-for-study') THEN 0 ELSE 1 END,
    state = 'receiving';

-- name: unknown_digests
SELECT digest FROM unnest(%s::text[]) AS spooled (digest)
WHERE NOT EXISTS (SELECT 1 FROM instances WHERE instances.digest = spooled.digest);

-- name: mend_clock
-- A clock that was set back would keep series waiting for as long as it was set back: their quiet time starts again.
UPDATE series SET last_received_at = clock_timestamp()
WHERE state IN ('receiving', 'waiting-for-study') AND last_received_at > clock_timestamp() + interval '1 second';

-- name: restart_quiet_times
-- While the server was down nothing could come: that time says nothing about whether a series is complete.
UPDATE series SET last_received_at = clock_timestamp() WHERE state IN ('receiving', 'waiting-for-study');

-- name: undecided_series
SELECT study_instance_uid, series_instance_uid, state, revision, calling_ae_title, last_received_at,
       extract(epoch FROM clock_timestamp() - last_received_at)::float8 AS quiet_seconds,
       extract(epoch FROM clock_timestamp() - (
           SELECT max(whole.last_received_at) FROM series AS whole
           WHERE whole.study_instance_uid = series.study_instance_uid))::float8 AS study_quiet_seconds,
       (SELECT min(digest) FROM instances
        WHERE instances.study_instance_uid = series.study_instance_uid
          AND instances.series_instance_uid = series.series_instance_uid) AS lowest_digest
FROM series
WHERE state IN ('receiving', 'waiting-for-study')
ORDER BY last_received_at;

-- name: series_of_study
SELECT study_instance_uid, series_instance_uid, state, revision, calling_ae_title, last_received_at,
       extract(epoch FROM clock_timestamp() - last_received_at)::float8 AS quiet_seconds,
       extract(epoch FROM clock_timestamp() - (
           SELECT max(whole.last_received_at) FROM series AS whole
           WHERE whole.study_instance_uid = series.study_instance_uid))::float8 AS study_quiet_seconds,
       (SELECT min(digest) FROM instances
        WHERE instances.study_instance_uid = series.study_instance_uid
          AND instances.series_instance_uid = series.series_instance_uid) AS lowest_digest
FROM series
WHERE study_instance_uid = %s
ORDER BY first_received_at, series_instance_uid;

-- name: lock_series
SELECT 1 FROM series
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
  AND revision = %(revision)s AND last_received_at = %(last_received_at)s
  AND state IN ('receiving', 'waiting-for-study')
FOR UPDATE;

-- name: lock_study
SELECT series_instance_uid, state, revision, last_received_at FROM series
WHERE study_instance_uid = %s
ORDER BY series_instance_uid  -- always in one order, so that two that lock a study take turns
FOR UPDATE;

-- name: conclude_series
-- The decision stands only for what was looked at: nothing came since.
UPDATE series SET state = %(to_state)s, rule = %(rule)s, reason = %(reason)s, decided_at = clock_timestamp()
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
  AND revision = %(revision)s AND last_received_at = %(last_received_at)s
  AND state IN ('receiving', 'waiting-for-study')
RETURNING 1;

-- name: conclude_locked_series
-- For a series that this transaction has locked: one that was decided before may be decided anew with its study.
UPDATE series SET state = %(to_state)s, rule = %(rule)s, reason = %(reason)s, decided_at = clock_timestamp()
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
RETURNING 1;

-- name: inputs_of_series
-- Of two contents under one SOP Instance UID the later one counts: corrections are legal.
SELECT DISTINCT ON (sop_instance_uid) sop_instance_uid, digest
FROM instances
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
ORDER BY sop_instance_uid, number DESC;

-- name: insert_job
INSERT INTO jobs (id, key, study_instance_uid, series_instance_uid, series_revision, rule, pipeline, model_name,
                  model_version, weights_digest, destinations, priority, generalist_name, generalist_version,
                  generalist_digest, on_disagreement)
VALUES (%(id)s, %(key)s, %(study_instance_uid)s, %(series_instance_uid)s, %(series_revision)s, %(rule)s, %(pipeline)s,
        %(model_name)s, %(model_version)s, %(weights_digest)s, %(destinations)s, %(priority)s, %(generalist_name)s,
        %(generalist_version)s, %(generalist_digest)s, %(on_disagreement)s)
ON CONFLICT (key) DO NOTHING
RETURNING id;

-- name: insert_input
INSERT INTO job_inputs (job_id, sop_instance_uid, digest, channel) VALUES (%s, %s, %s, %s);

-- name: refuse_job
-- A job that is refused as it is made: no attempt ever begins.
UPDATE jobs SET state = 'refused', code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND state = 'queued'
RETURNING 1;

-- name: reopen_series
UPDATE series SET state = 'receiving'
FROM jobs
WHERE jobs.id = %s AND series.study_instance_uid = jobs.study_instance_uid
  AND series.series_instance_uid = jobs.series_instance_uid AND series.state = 'routed';

-- name: reopen_prompts
-- Prompts whose last job was refused because their images were not held.
UPDATE series SET state = 'receiving'
WHERE study_instance_uid = %s AND state = 'routed'
  AND (SELECT jobs.code FROM jobs
       WHERE jobs.study_instance_uid = series.study_instance_uid
         AND jobs.series_instance_uid = series.series_instance_uid
       ORDER BY jobs.created_at DESC LIMIT 1) IN ('images-not-held', 'images-not-found')
  AND EXISTS (SELECT 1 FROM series AS other
              WHERE other.study_instance_uid = series.study_instance_uid
                AND other.last_received_at > series.decided_at);

-- name: pipelines_of_results
SELECT DISTINCT jobs.pipeline FROM results JOIN jobs ON jobs.id = results.job_id
WHERE results.sop_instance_uid = ANY(%s);

-- name: has_own_results
SELECT EXISTS (
    SELECT FROM instances JOIN results USING (sop_instance_uid)
    WHERE instances.study_instance_uid = %(study_instance_uid)s
      AND instances.series_instance_uid = %(series_instance_uid)s
) AS found;

-- name: inputs_of_job
SELECT sop_instance_uid, digest, channel FROM job_inputs WHERE job_id = %s ORDER BY channel, sop_instance_uid, digest;

-- name: begin_attempt
UPDATE jobs SET attempt = attempt + 1, tries = tries + 1, state = 'running', started_at = clock_timestamp(),
                progress_step = '', progress_done = 0, progress_total = 0
WHERE id = %s AND state IN ('queued', 'running')
RETURNING attempt, tries;

-- name: report_progress
-- Every write of an attempt names it: one that was overtaken writes nothing.
UPDATE jobs SET progress_step = %(step)s, progress_done = %(done)s, progress_total = %(total)s
WHERE id = %(id)s AND attempt = %(attempt)s AND state = 'running'
RETURNING 1;

-- name: release_attempt
UPDATE jobs SET state = 'queued', tries = tries - 1
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

-- name: clock
SELECT clock_timestamp() + make_interval(secs => %s) AS moment;

-- name: insert_result
INSERT INTO results (job_id, digest, attempt, path, sop_class_uid, sop_instance_uid, series_instance_uid,
                     transfer_syntax_uid, role, kind)
VALUES (%(job_id)s, %(digest)s, %(attempt)s, %(path)s, %(sop_class_uid)s, %(sop_instance_uid)s,
        %(series_instance_uid)s, %(transfer_syntax_uid)s, %(role)s, %(kind)s);

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

-- name: insert_step
INSERT INTO steps (job_id, attempt, step, seconds) VALUES (%s, %s, %s, %s);

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

-- name: lock_job
-- Two deliveries of one job that end at once take turns here, so that exactly one of them is the last.
SELECT state FROM jobs WHERE id = %s FOR UPDATE;

-- name: open_deliveries
SELECT count(*) AS open FROM deliveries WHERE job_id = %s AND state IN ('waiting', 'sending');

-- name: failed_deliveries
SELECT DISTINCT destination FROM deliveries WHERE job_id = %s AND state = 'failed' ORDER BY destination;

-- name: open_destinations
SELECT DISTINCT destination FROM deliveries WHERE state IN ('waiting', 'sending');

-- name: close_job
UPDATE jobs SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, finished_at = clock_timestamp()
WHERE id = %(id)s AND state = 'delivering'
RETURNING 1;

-- name: job
SELECT jobs.*, inputs.instances, inputs.first_received_at, inputs.last_received_at
FROM jobs
CROSS JOIN LATERAL (
    SELECT count(*) AS instances, min(received_at) AS first_received_at, max(received_at) AS last_received_at
    FROM job_inputs JOIN instances USING (sop_instance_uid, digest) WHERE job_inputs.job_id = jobs.id
) AS inputs
WHERE jobs.id = %s;

-- name: newest_jobs
SELECT jobs.*, inputs.instances, inputs.first_received_at, inputs.last_received_at
FROM jobs
CROSS JOIN LATERAL (
    SELECT count(*) AS instances, min(received_at) AS first_received_at, max(received_at) AS last_received_at
    FROM job_inputs JOIN instances USING (sop_instance_uid, digest) WHERE job_inputs.job_id = jobs.id
) AS inputs
ORDER BY created_at DESC, id LIMIT %s;

-- name: deliveries_of_jobs
SELECT * FROM deliveries WHERE job_id = ANY(%s) ORDER BY job_id, destination, digest;

-- name: results_of_jobs
SELECT * FROM results WHERE job_id = ANY(%s) ORDER BY job_id, path;

-- name: findings_of_job
SELECT role, number, label, code, volume_ml FROM findings WHERE job_id = %s ORDER BY role DESC, number;

-- name: agreement_of_job
SELECT number, label, dice, distance_mm, difference_ml, difference_percent, beyond FROM agreement
WHERE job_id = %s ORDER BY number;

-- name: notes_of_job
SELECT code, policy, message FROM notes WHERE job_id = %s ORDER BY number;

-- name: steps_of_jobs
SELECT * FROM steps WHERE job_id = ANY(%s) ORDER BY job_id, attempt, recorded_at;

-- name: all_series
SELECT * FROM series ORDER BY first_received_at;
