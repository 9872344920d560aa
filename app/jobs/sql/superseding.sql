-- The statements of app/jobs/records/superseding.py. A statement starts at its `-- name:` line.

-- name: lock_earlier_jobs
-- What the same rule and pipeline made before of the same series; of the same study where channels are bound in it. Of a
-- series that is read alone also what other rules made of it alone before more of it came.
SELECT id, state FROM jobs
WHERE study_instance_uid = %(study_instance_uid)s AND id <> %(id)s AND superseded_by IS NULL
  AND (rule = %(rule)s AND pipeline = %(pipeline)s
          AND (%(of_study)s OR series_instance_uid = %(series_instance_uid)s)
       OR pipeline = ANY(%(alone)s::text[]) AND series_instance_uid = %(series_instance_uid)s
          AND series_revision < %(series_revision)s
          AND NOT EXISTS (SELECT FROM job_inputs WHERE job_inputs.job_id = jobs.id AND channel <> ''))
ORDER BY created_at, id
FOR UPDATE;

-- name: keep_urgency
-- What is urgent stays so when more of it comes, or another model: a person's word is not to be given twice.
UPDATE jobs SET priority = greatest(priority, (
    SELECT max(earlier.priority) FROM jobs AS earlier
    WHERE earlier.superseded_by = %(id)s AND earlier.priority >= %(urgent)s))
WHERE id = %(id)s;

-- name: mark_superseded
-- What has not begun to be sent ends here; what has ended, or is being sent, keeps its state and its mark.
UPDATE jobs SET superseded_by = %(by)s, superseded_at = clock_timestamp(),
                state = CASE WHEN %(ends)s THEN 'superseded' ELSE state END,
                code = CASE WHEN %(ends)s THEN 'superseded' ELSE code END,
                reason = CASE WHEN %(ends)s THEN %(reason)s ELSE reason END,
                finished_at = CASE WHEN %(ends)s THEN clock_timestamp() ELSE finished_at END
WHERE id = %(id)s;

-- name: withhold_deliveries
-- One whose last outcome nobody learned keeps that as its code: its destination may have the object.
UPDATE deliveries SET state = 'replaced', reason = %(reason)s, next_attempt_at = NULL,
                      code = CASE WHEN is_unknown THEN code ELSE 'superseded' END,
                      finished_at = clock_timestamp()
WHERE job_id = %(id)s AND state IN ('held', 'waiting')
  AND digest NOT IN (SELECT digest FROM results WHERE job_id = %(id)s AND kind = 'rejection-note')
RETURNING digest, destination;

-- name: sent_deliveries
-- Those that a destination has, or may have.
SELECT count(*) FILTER (WHERE state NOT IN ('replaced', 'discarded', 'failed', 'cancelled'))::int AS sent,
       count(*) FILTER (WHERE state IN ('sending', 'committing'))::int AS open
FROM deliveries WHERE job_id = %s;

-- name: superseded_jobs
SELECT id FROM jobs WHERE superseded_by = %s ORDER BY created_at, id;

-- name: replaced_objects
-- What destinations have, or may have, of the jobs that the given ones took the place of, and of those before them.
WITH RECURSIVE earlier AS (
    SELECT id, superseded_by AS by, superseded_by AS first FROM jobs WHERE superseded_by = ANY(%s)
    UNION
    SELECT jobs.id, jobs.superseded_by, earlier.first FROM jobs JOIN earlier ON jobs.superseded_by = earlier.id
)
SELECT DISTINCT ON (jobs.created_at, results.path, deliveries.destination)
       earlier.first AS by_job, results.job_id, results.digest, results.sop_class_uid, results.sop_instance_uid,
       results.series_instance_uid, jobs.study_instance_uid, results.role, results.kind, deliveries.destination,
       deliveries.state NOT IN ('delivered', 'committing', 'committed') AS is_uncertain
FROM earlier
JOIN jobs ON jobs.id = earlier.id
JOIN results ON results.job_id = earlier.id AND results.kind <> 'rejection-note'
JOIN deliveries ON deliveries.job_id = results.job_id AND deliveries.digest = results.digest
WHERE deliveries.state IN ('delivered', 'committing', 'committed', 'sending') OR deliveries.is_unknown
ORDER BY jobs.created_at DESC, results.path, deliveries.destination;

-- name: jobs_with_objects_to_withdraw
-- Jobs that have delivered what takes the place of earlier jobs' objects.
SELECT DISTINCT whole.id FROM jobs AS whole JOIN jobs AS earlier ON earlier.superseded_by = whole.id
WHERE whole.state = 'closed';
