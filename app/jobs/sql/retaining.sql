-- The statements of app/jobs/records/retaining.py. A statement starts at its `-- name:` line.
--
-- What needs a study or a job's results is one word, '' where nothing does:
--   receiving   its series are not decided yet
--   job         a job runs, waits or is held
--   delivery    an object is on its way
--   commitment  a destination has it and is asked to commit itself to keep it
--   decision    a person is to decide: a dead letter, or a job of which a destination took no result, or did not commit
--               itself to one, and from where it was not withdrawn; what `replayable_jobs` (steering.sql) names
--   replay      a job or a delivery failed, or a job was cancelled, and may be repeated for a while
--
-- What is delivered, of a job that has ended, nobody asks about any more: its destination was not asked for commitment
-- then, whatever the settings say since.

-- name: kept_studies
-- The studies with files in the spool, those left alone longest first.
SELECT study.study_instance_uid, study.instances, study.bytes, of_study.needed_by,
       extract(epoch FROM clock_timestamp() - of_study.touched_at)::float8 AS idle_seconds
FROM (
    SELECT study_instance_uid, count(*) AS instances, sum(size_bytes)::bigint AS bytes
    FROM instances WHERE pruned_at IS NULL AND (%(study)s::text IS NULL OR study_instance_uid = %(study)s)
    GROUP BY study_instance_uid
) AS study
CROSS JOIN LATERAL (
    SELECT greatest(max(series.last_received_at), max(series.decided_at),
                    (SELECT max(greatest(jobs.created_at, jobs.started_at, jobs.finished_at)) FROM jobs
                     WHERE jobs.study_instance_uid = study.study_instance_uid),
                    (SELECT max(greatest(deliveries.last_attempt_at, deliveries.finished_at))
                     FROM jobs JOIN deliveries ON deliveries.job_id = jobs.id
                     WHERE jobs.study_instance_uid = study.study_instance_uid)) AS touched_at,
           CASE
           WHEN count(*) = 0 OR bool_or(series.state IN ('receiving', 'waiting-for-study')) THEN 'receiving'
           WHEN EXISTS (SELECT FROM jobs WHERE jobs.study_instance_uid = study.study_instance_uid
                        AND jobs.state IN ('queued', 'running', 'held', 'delivering')) THEN 'job'
           WHEN EXISTS (SELECT FROM jobs JOIN deliveries ON deliveries.job_id = jobs.id
                        WHERE jobs.study_instance_uid = study.study_instance_uid
                        AND (deliveries.state IN ('held', 'waiting', 'sending')
                             OR deliveries.state = 'committing' AND deliveries.destination <> ALL(%(committing)s)))
                THEN 'delivery'
           WHEN EXISTS (SELECT FROM jobs JOIN deliveries ON deliveries.job_id = jobs.id
                        WHERE jobs.study_instance_uid = study.study_instance_uid
                        AND deliveries.state = 'committing') THEN 'commitment'
           WHEN EXISTS (SELECT FROM jobs WHERE jobs.study_instance_uid = study.study_instance_uid
                        AND (jobs.state = 'dead-letter'
                             OR jobs.state = 'failed' AND jobs.code IN ('not-delivered', 'not-committed') AND EXISTS (
                                 SELECT FROM deliveries LEFT JOIN withdrawals USING (job_id, destination)
                                 WHERE job_id = jobs.id AND deliveries.state IN ('failed', 'cancelled')
                                   AND withdrawals.job_id IS NULL)))
                THEN 'decision'
           WHEN EXISTS (SELECT FROM jobs WHERE jobs.study_instance_uid = study.study_instance_uid
                        AND jobs.state IN ('failed', 'cancelled') AND coalesce(jobs.finished_at, jobs.created_at)
                            > clock_timestamp() - make_interval(secs => %(replay_seconds)s))
             OR EXISTS (SELECT FROM jobs JOIN deliveries ON deliveries.job_id = jobs.id
                        WHERE jobs.study_instance_uid = study.study_instance_uid AND deliveries.state = 'failed'
                        AND deliveries.finished_at > clock_timestamp() - make_interval(secs => %(replay_seconds)s))
                THEN 'replay'
           ELSE '' END AS needed_by
    FROM series WHERE series.study_instance_uid = study.study_instance_uid
) AS of_study
ORDER BY of_study.touched_at;

-- name: kept_results
-- Of these jobs, what needs their results; those left alone longest first.
SELECT jobs.id AS job_id, jobs.study_instance_uid,
       extract(epoch FROM clock_timestamp() - of_job.touched_at)::float8 AS idle_seconds,
       CASE
       WHEN jobs.state IN ('queued', 'running', 'held', 'delivering') THEN 'job'
       WHEN of_job.under_way THEN 'delivery'
       WHEN of_job.uncommitted THEN 'commitment'
       WHEN jobs.state = 'dead-letter'
         OR jobs.state = 'failed' AND jobs.code IN ('not-delivered', 'not-committed') AND of_job.undelivered
            THEN 'decision'
       WHEN jobs.state IN ('failed', 'cancelled') AND coalesce(jobs.finished_at, jobs.created_at)
            > clock_timestamp() - make_interval(secs => %(replay_seconds)s)
         OR of_job.failed_at > clock_timestamp() - make_interval(secs => %(replay_seconds)s) THEN 'replay'
       ELSE '' END AS needed_by
FROM jobs
CROSS JOIN LATERAL (
    SELECT greatest(jobs.created_at, jobs.started_at, jobs.finished_at,
                    max(greatest(deliveries.last_attempt_at, deliveries.finished_at))) AS touched_at,
           coalesce(bool_or(state IN ('held', 'waiting', 'sending')
                            OR state = 'committing' AND destination <> ALL(%(committing)s)), false) AS under_way,
           coalesce(bool_or(state = 'committing'), false) AS uncommitted,
           coalesce(bool_or(state IN ('failed', 'cancelled') AND withdrawals.job_id IS NULL), false) AS undelivered,
           max(finished_at) FILTER (WHERE state = 'failed') AS failed_at
    FROM deliveries LEFT JOIN withdrawals USING (job_id, destination) WHERE job_id = jobs.id
) AS of_job
WHERE jobs.id = ANY(%(jobs)s)
ORDER BY of_job.touched_at;

-- name: kept_bytes
SELECT coalesce(sum(size_bytes), 0)::bigint AS bytes FROM instances WHERE pruned_at IS NULL;

-- name: lock_kept_study
-- What comes for the study waits until the removal is recorded; a decision about it too.
SELECT 1 FROM series WHERE study_instance_uid = %s ORDER BY series_instance_uid FOR UPDATE;

-- name: reads_elsewhere
-- Whether a job of another study, against all custom, reads an instance of this one and has not ended.
SELECT EXISTS (
    SELECT FROM instances JOIN job_inputs USING (sop_instance_uid, digest) JOIN jobs ON jobs.id = job_inputs.job_id
    WHERE instances.study_instance_uid = %s AND instances.pruned_at IS NULL
      AND jobs.state IN ('queued', 'running', 'held', 'delivering')) AS found;

-- name: mark_instances
WITH marked AS (
    UPDATE instances SET pruned_at = clock_timestamp() WHERE study_instance_uid = %s AND pruned_at IS NULL
    RETURNING digest
)
INSERT INTO removals (kind, name) SELECT DISTINCT 'instance', digest FROM marked ON CONFLICT DO NOTHING;

-- name: lock_results
SELECT state FROM jobs WHERE id = %s FOR UPDATE;

-- name: results_came_since
-- Whether something of the job was written after its results were recorded as removed, or has yet to be sent, such as a
-- rejection note. To be asked while the job is held.
SELECT EXISTS (SELECT FROM results WHERE job_id = %(job_id)s AND pruned_at IS NULL)
    OR EXISTS (SELECT FROM deliveries WHERE job_id = %(job_id)s
               AND state IN ('held', 'waiting', 'sending', 'committing')) AS found;

-- name: mark_results
UPDATE results SET pruned_at = clock_timestamp() WHERE job_id = %s AND pruned_at IS NULL;

-- name: insert_removal
INSERT INTO removals (kind, name) VALUES ('results', %s) ON CONFLICT DO NOTHING;

-- name: removals_of_results
SELECT name FROM removals WHERE kind = 'results' ORDER BY recorded_at LIMIT %s;

-- name: removals_of_instances
SELECT name FROM removals WHERE kind = 'instance' ORDER BY recorded_at LIMIT %s;

-- name: allow_silence
SELECT set_config('idle_in_transaction_session_timeout', %s, true);

-- name: lock_removed
-- Those that have not come back since; one that comes now waits until its file is gone, and is then kept anew.
SELECT digest FROM instances WHERE digest = ANY(%s) AND pruned_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM instances AS same WHERE same.digest = instances.digest AND same.pruned_at IS NULL)
ORDER BY digest FOR UPDATE;

-- name: removed_of
-- Those of these digests that came once and were removed; of some the files are about to go.
SELECT DISTINCT digest FROM instances WHERE digest = ANY(%s) AND pruned_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM instances AS same WHERE same.digest = instances.digest AND same.pruned_at IS NULL);

-- name: removed
DELETE FROM removals WHERE kind = %s AND name = ANY(%s);

-- name: retention_is_asked_for
SELECT EXISTS (
    SELECT FROM procrastinate_jobs WHERE task_name = 'retain' AND status IN ('todo', 'doing')) AS found;
