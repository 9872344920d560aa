-- The statements of app/jobs/records/accounting.py. A statement starts at its `-- name:` line.
--
-- Each rule is a statement that gives a row for each thing that breaks it, and none where all is well. They are asked in
-- one snapshot, so that what moves meanwhile is seen either before or after its move, never half of it.

-- name: begin_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;

-- name: instances_by_state
-- Every instance by what became of its series.
SELECT coalesce(series.state, 'without-series') AS state, count(*) AS count
FROM instances LEFT JOIN series USING (study_instance_uid, series_instance_uid)
WHERE received_at >= %(since)s
GROUP BY 1 ORDER BY 1;

-- name: files_by_state
SELECT CASE WHEN pruned_at IS NULL THEN 'kept' ELSE 'removed by retention' END AS state, count(*) AS count
FROM instances WHERE received_at >= %(since)s
GROUP BY 1 ORDER BY 1;

-- name: series_by_state
SELECT state, count(*) AS count FROM series WHERE last_received_at >= %(since)s GROUP BY 1 ORDER BY 1;

-- name: jobs_by_state
-- What lives counts whatever its age.
SELECT state, count(*) AS count FROM jobs
WHERE created_at >= %(since)s OR state IN ('queued', 'running', 'held', 'delivering')
GROUP BY 1 ORDER BY 1;

-- name: deliveries_by_state
SELECT deliveries.state, count(*) AS count
FROM deliveries JOIN jobs ON jobs.id = job_id
WHERE jobs.created_at >= %(since)s OR deliveries.state IN ('held', 'waiting', 'sending', 'committing')
GROUP BY 1 ORDER BY 1;

-- name: ledger
SELECT digest, size_bytes, sop_instance_uid, series_instance_uid, study_instance_uid
FROM instances WHERE received_at >= %(since)s AND pruned_at IS NULL;

-- name: kept_of
-- Those of these digests whose files must be there now.
SELECT digest FROM instances WHERE digest = ANY(%(digests)s) AND pruned_at IS NULL;

-- name: known_of
-- Those of these digests whose files may be there now: recorded, or recorded as removed and about to be.
SELECT digest FROM instances WHERE digest = ANY(%(digests)s) AND pruned_at IS NULL
UNION
SELECT name FROM removals WHERE kind = 'instance' AND name = ANY(%(digests)s);

-- name: results_kept
SELECT results.job_id, results.digest, results.path, jobs.study_instance_uid
FROM results JOIN jobs ON jobs.id = results.job_id
WHERE jobs.created_at >= %(since)s AND pruned_at IS NULL;

-- name: result_is_kept
SELECT 1 FROM results WHERE job_id = %(job_id)s AND digest = %(digest)s AND pruned_at IS NULL;

-- name: seen_series
-- What came of a study, and what was made for it: neither need come again.
SELECT series_instance_uid FROM series WHERE study_instance_uid = %(study)s
UNION
SELECT results.series_instance_uid FROM results JOIN jobs ON jobs.id = job_id WHERE jobs.study_instance_uid = %(study)s;

-- name: delivered
-- What destinations have got, by the records, and must show. An archive that honours a rejection note may hide what it
-- rejects, and the note with it.
SELECT deliveries.job_id, deliveries.digest, deliveries.destination, results.sop_instance_uid,
       results.series_instance_uid, jobs.study_instance_uid
FROM deliveries JOIN results USING (job_id, digest) JOIN jobs ON jobs.id = deliveries.job_id
WHERE jobs.created_at >= %(since)s AND deliveries.state IN ('delivered', 'committed')
  AND results.kind <> 'rejection-note' AND NOT EXISTS (
      SELECT FROM withdrawals
      WHERE withdrawals.job_id = deliveries.job_id AND withdrawals.destination = deliveries.destination)
ORDER BY deliveries.destination, jobs.study_instance_uid, results.series_instance_uid;

-- name: jobs_and_states
SELECT id, state, created_at, study_instance_uid FROM jobs WHERE created_at >= %(since)s;

-- name: jobs_of
SELECT id FROM jobs WHERE id = ANY(%(jobs)s::uuid[]);

-- name: studies_without_instances
SELECT named.study FROM unnest(%(studies)s::text[]) AS named (study)
WHERE NOT EXISTS (SELECT FROM instances WHERE study_instance_uid = named.study);

-- name: deliveries_of_since
SELECT job_id, digest, destination, deliveries.state
FROM deliveries JOIN jobs ON jobs.id = job_id WHERE jobs.created_at >= %(since)s;

-- name: deliveries_of
SELECT job_id, digest, destination FROM deliveries WHERE job_id = ANY(%(jobs)s::uuid[]);

-- name: rule_series_missing
SELECT DISTINCT study_instance_uid, series_instance_uid FROM instances
WHERE received_at >= %(since)s AND NOT EXISTS (
    SELECT FROM series WHERE series.study_instance_uid = instances.study_instance_uid
                         AND series.series_instance_uid = instances.series_instance_uid);

-- name: rule_series_empty
SELECT study_instance_uid, series_instance_uid FROM series
WHERE last_received_at >= %(since)s AND NOT EXISTS (
    SELECT FROM instances WHERE instances.study_instance_uid = series.study_instance_uid
                            AND instances.series_instance_uid = series.series_instance_uid);

-- name: rule_series_without_job
-- A routed series has the job of its revision, or names the job that reads it or that had answered it before.
SELECT study_instance_uid, series_instance_uid, rule, revision, substring(reason FROM 'job ([0-9a-f-]{36})') AS job_id
FROM series
WHERE last_received_at >= %(since)s AND state = 'routed'
  AND NOT EXISTS (
    SELECT FROM jobs
    WHERE jobs.id = substring(series.reason FROM 'job ([0-9a-f-]{36})')::uuid)
  AND NOT EXISTS (
    SELECT FROM jobs
    WHERE jobs.study_instance_uid = series.study_instance_uid
      AND jobs.series_instance_uid = series.series_instance_uid
      AND jobs.rule = series.rule
      AND (jobs.series_revision = series.revision OR series.reason = 'already-done'));

-- name: rule_job_without_inputs
SELECT id AS job_id, study_instance_uid, series_instance_uid FROM jobs
WHERE created_at >= %(since)s AND NOT EXISTS (SELECT FROM job_inputs WHERE job_inputs.job_id = jobs.id);

-- name: rule_instance_missing
-- What a job read, or is to read. No instance's row is ever removed: retention marks it.
SELECT DISTINCT job_inputs.sop_instance_uid, job_inputs.digest, jobs.study_instance_uid
FROM jobs JOIN job_inputs ON job_inputs.job_id = jobs.id
WHERE (jobs.created_at >= %(since)s OR jobs.state IN ('queued', 'running', 'held', 'delivering'))
  AND NOT EXISTS (SELECT FROM instances WHERE instances.sop_instance_uid = job_inputs.sop_instance_uid
                                          AND instances.digest = job_inputs.digest);

-- name: rule_job_without_task
-- A queued job waits in the queue; a running one is a task that a worker has, or that is put back when its worker dies.
SELECT id AS job_id, state, study_instance_uid, series_instance_uid FROM jobs
WHERE state IN ('queued', 'running') AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS task
    WHERE task.task_name = 'segment' AND task.status IN ('todo', 'doing') AND task.args ->> 'job_id' = jobs.id::text);

-- name: rule_job_not_closed
-- A delivering job has an object on its way, or is about to be closed.
SELECT id AS job_id, study_instance_uid, series_instance_uid FROM jobs
WHERE state = 'delivering'
  AND NOT EXISTS (
    SELECT FROM deliveries WHERE job_id = jobs.id AND deliveries.state IN ('waiting', 'sending', 'committing'))
  AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS task
    WHERE task.task_name = 'close' AND task.status IN ('todo', 'doing') AND task.args ->> 'job_id' = jobs.id::text);

-- name: rule_task_given_up
-- What a defect failed again and again is set aside (app/jobs/queue.py); not every task is about a job.
SELECT jobs.id AS job_id, jobs.study_instance_uid, jobs.series_instance_uid
FROM procrastinate_jobs AS task LEFT JOIN jobs ON jobs.id = (task.args ->> 'job_id')::uuid
WHERE task.queue_name = 'given-up' AND task.status = 'todo';

-- name: rule_job_closed_too_soon
-- A rejection note is added to a job that has ended.
SELECT DISTINCT jobs.id AS job_id, study_instance_uid
FROM jobs JOIN deliveries ON deliveries.job_id = jobs.id JOIN results USING (job_id, digest)
WHERE jobs.state IN ('closed', 'discarded') AND deliveries.state IN ('held', 'waiting', 'sending', 'committing')
  AND results.kind <> 'rejection-note';

-- name: rule_job_held_without_delivery
-- A held job has something to decide on.
SELECT id AS job_id, study_instance_uid, series_instance_uid FROM jobs
WHERE state = 'held' AND destinations <> '{}'
  AND NOT EXISTS (SELECT FROM deliveries WHERE job_id = jobs.id AND deliveries.state = 'held');

-- name: rule_delivery_held_alone
SELECT job_id, jobs.state, destination, digest, study_instance_uid
FROM deliveries JOIN jobs ON jobs.id = job_id
WHERE deliveries.state = 'held' AND jobs.state NOT IN ('held', 'closed', 'discarded');

-- name: rule_delivery_without_task
-- It has a task of its own, or whoever has the turn of its destination sends it too.
SELECT job_id, destination, digest, study_instance_uid
FROM deliveries JOIN jobs ON jobs.id = job_id
WHERE deliveries.state IN ('waiting', 'sending')
  AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS task
    WHERE task.task_name = 'deliver' AND task.status IN ('todo', 'doing')
      AND task.args ->> 'job_id' = deliveries.job_id::text AND task.args ->> 'digest' = deliveries.digest
      AND task.args ->> 'destination' = deliveries.destination)
  AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS task
    WHERE (task.task_name = 'turn' AND task.status IN ('todo', 'doing')
           OR task.task_name = 'deliver' AND task.status = 'doing')
      AND task.args ->> 'destination' = deliveries.destination);

-- name: rule_delivery_missing
-- A task to send an object, and no record of where to and what became of it.
SELECT (args ->> 'job_id')::uuid AS job_id, args ->> 'destination' AS destination, args ->> 'digest' AS digest,
       jobs.study_instance_uid
FROM procrastinate_jobs AS task LEFT JOIN jobs ON jobs.id = (task.args ->> 'job_id')::uuid
WHERE task_name = 'deliver' AND task.status IN ('todo', 'doing') AND NOT EXISTS (
    SELECT FROM deliveries WHERE job_id = (task.args ->> 'job_id')::uuid AND digest = task.args ->> 'digest'
                             AND destination = task.args ->> 'destination');

-- name: rule_deliveries_lost
-- A job has as many deliveries as were made for it; of those that are gone, the destinations of which nothing is left.
SELECT jobs.id AS job_id, jobs.study_instance_uid, without.destination
FROM jobs LEFT JOIN LATERAL (
    SELECT destination FROM unnest(jobs.destinations) AS named (destination)
    WHERE NOT EXISTS (SELECT FROM deliveries WHERE job_id = jobs.id AND deliveries.destination = named.destination)
) AS without ON true
WHERE (jobs.created_at >= %(since)s OR jobs.state IN ('queued', 'running', 'held', 'delivering'))
  AND jobs.deliveries_made > (SELECT count(*) FROM deliveries WHERE job_id = jobs.id);
