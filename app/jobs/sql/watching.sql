-- The statements of app/jobs/records/watching.py. A statement starts at its `-- name:` line.

-- name: clock
SELECT clock_timestamp() + make_interval(secs => %s) AS moment;

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
WHERE %(state)s = '' OR jobs.state = %(state)s
ORDER BY created_at DESC, id LIMIT %(limit)s;

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
