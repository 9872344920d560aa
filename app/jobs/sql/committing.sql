-- The statements of app/jobs/records/committing.py. A statement starts at its `-- name:` line.

-- name: due_commitments
SELECT DISTINCT job_id FROM deliveries
WHERE destination = %(destination)s AND state = 'committing' AND coalesce(next_attempt_at <= clock_timestamp(), true)
ORDER BY job_id LIMIT %(limit)s;

-- name: put_off_commitments
-- Until a question is asked again that did not reach whom it went to, nothing else is asked there. Nothing is waited for
-- with other rows locked: what somebody changes now is put off, or asked about, when it is looked at again.
UPDATE deliveries SET code = away.code, reason = away.reason, next_attempt_at = away.next_attempt_at
FROM (
    SELECT code, reason, next_attempt_at FROM deliveries
    WHERE destination = %(destination)s AND state = 'committing' AND code = ANY(%(codes)s)
      AND next_attempt_at > clock_timestamp()
    ORDER BY next_attempt_at DESC LIMIT 1
) AS away
WHERE (job_id, digest, destination) IN (
    SELECT job_id, digest, destination FROM deliveries
    WHERE destination = %(destination)s AND state = 'committing' AND coalesce(next_attempt_at <= clock_timestamp(), true)
    FOR UPDATE SKIP LOCKED
)
RETURNING 1;

-- name: begin_round
-- They stay due until they have been asked about: the turn has one holder, and a dead one's question is asked anew.
UPDATE deliveries SET commitment_rounds = commitment_rounds + 1, next_attempt_at = NULL
FROM results
WHERE results.job_id = deliveries.job_id AND results.digest = deliveries.digest
  AND deliveries.job_id = %(job_id)s AND destination = %(destination)s AND state = 'committing'
  AND coalesce(next_attempt_at <= clock_timestamp(), true)
RETURNING deliveries.digest, results.sop_class_uid, results.sop_instance_uid, results.series_instance_uid,
          commitment_rounds, deliveries.code;

-- name: take_back_round
UPDATE deliveries SET commitment_rounds = commitment_rounds - 1
WHERE job_id = %(job_id)s AND destination = %(destination)s AND state = 'committing' AND digest = ANY(%(digests)s);

-- name: insert_commitment
INSERT INTO commitments (transaction_uid, job_id, destination)
VALUES (%(transaction_uid)s, %(job_id)s, %(destination)s);

-- name: insert_commitment_object
INSERT INTO commitment_objects (transaction_uid, digest, sop_instance_uid)
VALUES (%(transaction_uid)s, %(digest)s, %(sop_instance_uid)s);

-- name: ask_again
-- A question that the destination did not get was no round.
UPDATE deliveries SET commitment_rounds = commitment_rounds - CASE WHEN %(counts)s THEN 0 ELSE 1 END,
                      code = %(code)s, reason = %(reason)s,
                      next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE job_id = %(job_id)s AND destination = %(destination)s AND state = 'committing' AND digest = ANY(%(digests)s)
RETURNING next_attempt_at;

-- name: insert_report
INSERT INTO commitment_reports (transaction_uid, committed, refused, reasons)
SELECT transaction_uid, %(committed)s, %(refused)s, %(reasons)s FROM commitments
WHERE transaction_uid = %(transaction_uid)s AND destination = ANY(%(destinations)s)
RETURNING number;

-- name: lock_reports
SELECT commitment_reports.*, commitments.job_id, commitments.destination,
       NOT EXISTS (
           SELECT 1 FROM commitments AS later
           WHERE later.job_id = commitments.job_id AND later.destination = commitments.destination
             AND later.requested_at > commitments.requested_at
       ) AS is_latest
FROM commitment_reports JOIN commitments USING (transaction_uid)
WHERE transaction_uid = %(transaction_uid)s AND applied_at IS NULL
ORDER BY number FOR UPDATE OF commitment_reports;

-- name: applied_reports
UPDATE commitment_reports SET applied_at = clock_timestamp() WHERE number = %(number)s;

-- name: reported_objects
SELECT deliveries.digest, commitment_objects.sop_instance_uid, commitment_rounds
FROM commitment_objects JOIN deliveries USING (digest)
WHERE transaction_uid = %(transaction_uid)s AND deliveries.job_id = %(job_id)s
  AND deliveries.destination = %(destination)s AND deliveries.state = 'committing';

-- name: send_again
-- It was taken, and may be there: also once another attempt has another code.
UPDATE deliveries SET state = 'waiting', code = %(code)s, reason = %(reason)s, finished_at = NULL,
                      is_unknown = %(code)s <> 'commitment-not-found',
                      next_attempt_at = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s AND state = 'committing'
RETURNING next_attempt_at;

-- name: end_commitment
UPDATE deliveries SET state = %(to_state)s, code = %(code)s, reason = %(reason)s, next_attempt_at = NULL,
                      is_unknown = %(to_state)s = 'failed' AND %(code)s <> 'commitment-not-found',
                      finished_at = coalesce(finished_at, clock_timestamp()),
                      committed_at = CASE WHEN %(to_state)s = 'committed' THEN clock_timestamp() END
WHERE job_id = %(job_id)s AND digest = %(digest)s AND destination = %(destination)s AND state = 'committing';
