-- The statements of app/jobs/records/deciding.py. A statement starts at its `-- name:` line.

-- name: mend_clock
-- A clock that was set back would keep series waiting for as long as it was set back: their quiet time starts again.
UPDATE series SET last_received_at = clock_timestamp()
WHERE state IN ('receiving', 'waiting-for-study') AND last_received_at > clock_timestamp() + interval '1 second';

-- name: database_time
SELECT clock_timestamp() AS now;

-- name: follow_clock
-- A clock that was set ahead would end every quiet time at once: what came before goes ahead with it.
UPDATE series SET last_received_at = last_received_at + make_interval(secs => %(ahead)s),
                  released_at = released_at + make_interval(secs => %(ahead)s)
WHERE state IN ('receiving', 'waiting-for-study') AND last_received_at <= %(until)s;

-- name: restart_quiet_times
-- While the server was down nothing could come: that time says nothing about whether a series is complete.
UPDATE series SET last_received_at = clock_timestamp() WHERE state IN ('receiving', 'waiting-for-study');

-- name: undecided_series
SELECT study_instance_uid, series_instance_uid, state, revision, calling_ae_title, last_received_at,
       extract(epoch FROM clock_timestamp() - last_received_at)::float8 AS quiet_seconds,
       extract(epoch FROM clock_timestamp() - (
           -- what is decided keeps a time that a clock had before it was set back (mend_clock): that one says nothing
           SELECT coalesce(
               max(last_received_at) FILTER (WHERE last_received_at <= clock_timestamp() + interval '1 second'),
               max(last_received_at))
           FROM series AS whole
           WHERE whole.study_instance_uid = series.study_instance_uid))::float8 AS study_quiet_seconds,
       (SELECT digest FROM (  -- of the instance that came first, so that no later one decides; its latest content
            SELECT DISTINCT ON (sop_instance_uid) digest, pruned_at,  -- as inputs_of_series
                   min(number) OVER (PARTITION BY sop_instance_uid) AS came
            FROM instances
            WHERE instances.study_instance_uid = series.study_instance_uid
              AND instances.series_instance_uid = series.series_instance_uid
            ORDER BY sop_instance_uid, pruned_at IS NOT NULL, number DESC) AS latest
        ORDER BY pruned_at IS NOT NULL, came LIMIT 1) AS header_digest,
       coalesce(released_at >= last_received_at, false) AS released,
       (SELECT count(DISTINCT association)::int FROM transfers
        WHERE transfers.study_instance_uid = series.study_instance_uid AND transfers.state = 'open'
          AND transfers.calling_ae_title = series.calling_ae_title) AS open_associations,
       CASE WHEN expected.instances IS NOT NULL THEN
           (SELECT count(DISTINCT sop_instance_uid)::int FROM instances
            WHERE instances.study_instance_uid = series.study_instance_uid
              AND instances.series_instance_uid = series.series_instance_uid) END AS instances,
       expected.instances AS expected,
       (SELECT count(*)::int FROM expected_series AS other
        WHERE other.study_instance_uid = series.study_instance_uid
          AND NOT EXISTS (SELECT FROM series AS here
                          WHERE here.study_instance_uid = other.study_instance_uid
                            AND here.series_instance_uid = other.series_instance_uid)
          AND NOT EXISTS (SELECT FROM results
                          WHERE results.series_instance_uid = other.series_instance_uid)) AS series_missing,
       coalesce(questions.archive, '') AS asked_archive, coalesce(questions.code, '') AS asked_code,
       coalesce(questions.asks, 0) AS asks,
       extract(epoch FROM clock_timestamp() - questions.asked_at)::float8 AS asked_seconds,
       extract(epoch FROM clock_timestamp() - questions.answered_at)::float8 AS answered_seconds,
       waits_for,
       EXISTS (SELECT FROM instances
               WHERE instances.study_instance_uid = series.study_instance_uid
                 AND instances.series_instance_uid = series.series_instance_uid
                 AND pruned_at IS NULL) AS is_kept
FROM series
LEFT JOIN questions USING (study_instance_uid)
LEFT JOIN expected_series AS expected USING (study_instance_uid, series_instance_uid)
WHERE state IN ('receiving', 'waiting-for-study')
ORDER BY last_received_at;

-- name: explain_waiting
UPDATE series SET waits_for = %(waits_for)s
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
  AND state IN ('receiving', 'waiting-for-study') AND waits_for IS DISTINCT FROM %(waits_for)s
RETURNING 1;

-- name: series_of_study
SELECT study_instance_uid, series_instance_uid, state, revision, calling_ae_title, last_received_at,
       extract(epoch FROM clock_timestamp() - last_received_at)::float8 AS quiet_seconds,
       extract(epoch FROM clock_timestamp() - (
           -- what is decided keeps a time that a clock had before it was set back (mend_clock): that one says nothing
           SELECT coalesce(
               max(last_received_at) FILTER (WHERE last_received_at <= clock_timestamp() + interval '1 second'),
               max(last_received_at))
           FROM series AS whole
           WHERE whole.study_instance_uid = series.study_instance_uid))::float8 AS study_quiet_seconds,
       (SELECT digest FROM (  -- of the instance that came first, so that no later one decides; its latest content
            SELECT DISTINCT ON (sop_instance_uid) digest, pruned_at,  -- as inputs_of_series
                   min(number) OVER (PARTITION BY sop_instance_uid) AS came
            FROM instances
            WHERE instances.study_instance_uid = series.study_instance_uid
              AND instances.series_instance_uid = series.series_instance_uid
            ORDER BY sop_instance_uid, pruned_at IS NOT NULL, number DESC) AS latest
        ORDER BY pruned_at IS NOT NULL, came LIMIT 1) AS header_digest,
       coalesce(released_at >= last_received_at, false) AS released,
       (SELECT count(DISTINCT association)::int FROM transfers
        WHERE transfers.study_instance_uid = series.study_instance_uid AND transfers.state = 'open'
          AND transfers.calling_ae_title = series.calling_ae_title) AS open_associations,
       CASE WHEN expected.instances IS NOT NULL THEN
           (SELECT count(DISTINCT sop_instance_uid)::int FROM instances
            WHERE instances.study_instance_uid = series.study_instance_uid
              AND instances.series_instance_uid = series.series_instance_uid) END AS instances,
       expected.instances AS expected,
       (SELECT count(*)::int FROM expected_series AS other
        WHERE other.study_instance_uid = series.study_instance_uid
          AND NOT EXISTS (SELECT FROM series AS here
                          WHERE here.study_instance_uid = other.study_instance_uid
                            AND here.series_instance_uid = other.series_instance_uid)
          AND NOT EXISTS (SELECT FROM results
                          WHERE results.series_instance_uid = other.series_instance_uid)) AS series_missing,
       coalesce(questions.archive, '') AS asked_archive, coalesce(questions.code, '') AS asked_code,
       coalesce(questions.asks, 0) AS asks,
       extract(epoch FROM clock_timestamp() - questions.asked_at)::float8 AS asked_seconds,
       extract(epoch FROM clock_timestamp() - questions.answered_at)::float8 AS answered_seconds,
       waits_for,
       EXISTS (SELECT FROM instances
               WHERE instances.study_instance_uid = series.study_instance_uid
                 AND instances.series_instance_uid = series.series_instance_uid
                 AND pruned_at IS NULL) AS is_kept
FROM series
LEFT JOIN questions USING (study_instance_uid)
LEFT JOIN expected_series AS expected USING (study_instance_uid, series_instance_uid)
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
UPDATE series SET state = %(to_state)s, rule = %(rule)s, reason = %(reason)s, decided_at = clock_timestamp(),
                  waits_for = NULL
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
  AND revision = %(revision)s AND last_received_at = %(last_received_at)s
  AND state IN ('receiving', 'waiting-for-study')
RETURNING 1;

-- name: conclude_locked_series
-- For a series that this transaction has locked: one that was decided before may be decided anew with its study.
UPDATE series SET state = %(to_state)s, rule = %(rule)s, reason = %(reason)s, decided_at = clock_timestamp(),
                  waits_for = NULL
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
RETURNING 1;

-- name: inputs_of_series
-- Of two contents under one SOP Instance UID the later one counts: corrections are legal.
SELECT DISTINCT ON (sop_instance_uid) sop_instance_uid, digest
FROM instances
WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
  AND (pruned_at IS NULL OR %(with_removed)s)
ORDER BY sop_instance_uid, number DESC;

-- name: knows_job
SELECT EXISTS (SELECT FROM jobs WHERE key = %s AND NOT (state = 'failed' AND code = 'model-replaced')) AS found;

-- name: insert_job
INSERT INTO jobs (id, key, study_instance_uid, series_instance_uid, series_revision, rule, pipeline, model_name,
                  model_version, weights_digest, destinations, priority, generalist_name, generalist_version,
                  generalist_digest, on_disagreement, deliveries_made)
VALUES (%(id)s, %(key)s, %(study_instance_uid)s, %(series_instance_uid)s, %(series_revision)s, %(rule)s, %(pipeline)s,
        %(model_name)s, %(model_version)s, %(weights_digest)s, %(destinations)s, %(priority)s, %(generalist_name)s,
        %(generalist_version)s, %(generalist_digest)s, %(on_disagreement)s, 0)
ON CONFLICT (key) DO NOTHING
RETURNING id;

-- name: begin_again
-- A job that ended since a worker had another model: no other has taken its place if it is asked for. As it is asked for
-- now; what a person put first stays there.
UPDATE jobs SET state = 'queued', tries = 0, code = '', reason = '', finished_at = NULL, superseded_by = NULL,
                superseded_at = NULL, series_revision = %(series_revision)s, rule = %(rule)s,
                destinations = %(destinations)s, priority = greatest(priority, %(priority)s),
                on_disagreement = %(on_disagreement)s
WHERE key = %(key)s AND state = 'failed' AND code = 'model-replaced'
RETURNING attempt;

-- name: insert_input
INSERT INTO job_inputs (job_id, sop_instance_uid, digest, channel) VALUES (%s, %s, %s, %s);

-- name: note_shortfall
-- Before what the gate notes, whose numbers begin with 1.
INSERT INTO notes (job_id, number, code, policy, message) VALUES (%(job_id)s, 0, 'incomplete', 'warn', %(message)s);

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
