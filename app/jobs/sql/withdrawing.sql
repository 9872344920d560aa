-- The statements of app/jobs/records/withdrawing.py. A statement starts at its `-- name:` line.

-- name: insert_withdrawal
INSERT INTO withdrawals (job_id, destination, reason, person, withdrawn_at, objects, digest, code, message)
VALUES (%(job_id)s, %(destination)s, %(reason)s, %(person)s, %(withdrawn_at)s, %(objects)s, %(digest)s, %(code)s,
        %(message)s);

-- name: cancel_deliveries
-- One that is being sent now ends here too: its own outcome finds it ended, and the note refers to it.
UPDATE deliveries SET state = 'cancelled', code = 'withdrawn', reason = %(reason)s, next_attempt_at = NULL,
                      finished_at = clock_timestamp()
FROM results
WHERE results.job_id = deliveries.job_id AND results.digest = deliveries.digest AND results.kind <> 'rejection-note'
  AND deliveries.job_id = %(job_id)s AND destination = %(destination)s AND state IN ('held', 'waiting', 'sending')
RETURNING deliveries.digest;

-- name: give_up_commitments
-- The note has an archive hide these objects: that it finds them no more is no reason to send them again.
UPDATE deliveries SET state = 'delivered', code = 'withdrawn', reason = %(reason)s, next_attempt_at = NULL,
                      finished_at = coalesce(deliveries.finished_at, clock_timestamp())
FROM results
WHERE results.job_id = deliveries.job_id AND results.digest = deliveries.digest AND results.kind <> 'rejection-note'
  AND deliveries.job_id = %(job_id)s AND destination = %(destination)s AND state = 'committing';

-- name: is_withdrawn
SELECT EXISTS (
    SELECT FROM withdrawals JOIN results USING (job_id)
    WHERE job_id = %(job_id)s AND withdrawals.destination = %(destination)s AND results.digest = %(digest)s
      AND kind <> 'rejection-note'
) AS is_withdrawn;

-- name: is_delivered
-- Whether nothing of the job is on its way any more, notes aside.
SELECT NOT EXISTS (
    SELECT 1 FROM deliveries JOIN results USING (job_id, digest)
    WHERE job_id = %s AND kind <> 'rejection-note' AND state IN ('held', 'waiting', 'sending', 'committing')
) AS is_delivered;

-- name: withdrawals
SELECT * FROM withdrawals WHERE job_id = %s ORDER BY destination;
