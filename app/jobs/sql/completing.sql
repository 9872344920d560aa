-- The statements of app/jobs/records/completing.py. A statement starts at its `-- name:` line.

-- name: begin_question
-- Counted from the last content on: what came since makes it a new question.
INSERT INTO questions (study_instance_uid, archive, asks, asked_at, code)
VALUES (%(study_instance_uid)s, %(archive)s, 1, clock_timestamp(), 'asking')
ON CONFLICT (study_instance_uid) DO UPDATE SET
    archive = EXCLUDED.archive,
    asks = CASE WHEN questions.asked_at < (
        SELECT max(last_received_at) FROM series WHERE series.study_instance_uid = questions.study_instance_uid
    ) THEN 1 ELSE questions.asks + 1 END,
    asked_at = EXCLUDED.asked_at,
    code = 'asking'
RETURNING asked_at;

-- name: end_question
UPDATE questions SET code = %(code)s,
                     answered_at = CASE WHEN %(code)s = '' THEN asked_at ELSE answered_at END
WHERE study_instance_uid = %(study_instance_uid)s AND asked_at = %(asked_at)s
RETURNING 1;

-- name: forget_expected
DELETE FROM expected_series WHERE study_instance_uid = %s;

-- name: insert_expected
INSERT INTO expected_series (study_instance_uid, series_instance_uid, instances) VALUES (%s, %s, %s);

-- name: queue_places
SELECT jobs.id AS job_id,
       (SELECT count(*)::int FROM jobs AS other
        WHERE other.state = 'running'
           OR other.state = 'queued' AND (other.priority > jobs.priority
                OR other.priority = jobs.priority AND (other.created_at, other.id) < (jobs.created_at, jobs.id))
       ) AS before,
       (SELECT min(scheduled_at) FROM procrastinate_jobs AS task
        WHERE task.task_name = 'segment' AND task.status = 'todo' AND task.args ->> 'job_id' = jobs.id::text
          AND task.scheduled_at > clock_timestamp()) AS not_before
FROM jobs
WHERE jobs.id = ANY(%s) AND jobs.state = 'queued';

-- name: begin_transfer
INSERT INTO transfers (association, study_instance_uid, series_instance_uid, calling_ae_title, listener)
VALUES (%(association)s, %(study_instance_uid)s, %(series_instance_uid)s, %(calling_ae_title)s, %(listener)s)
ON CONFLICT DO NOTHING;

-- name: end_transfers
UPDATE transfers SET state = %(to_state)s, ended_at = clock_timestamp()
WHERE association = %(association)s AND state = 'open'
RETURNING study_instance_uid, calling_ae_title;

-- name: lock_series_of_source
-- Associations of one source that end at once take turns here, so that the last one sees that it is the last.
SELECT 1 FROM series WHERE study_instance_uid = ANY(%s) ORDER BY study_instance_uid, series_instance_uid FOR UPDATE;

-- name: release_series
-- None of the source's associations is open that brought anything of the study. A series that a broken one brought is
-- whole only once a later one was released that brought it too.
UPDATE series SET released_at = clock_timestamp()
FROM transfers AS whole
WHERE whole.study_instance_uid = %(study_instance_uid)s AND whole.calling_ae_title = %(calling_ae_title)s
  AND whole.state = 'released'
  AND series.study_instance_uid = whole.study_instance_uid
  AND series.series_instance_uid = whole.series_instance_uid
  AND series.state IN ('receiving', 'waiting-for-study')
  AND NOT EXISTS (
      SELECT FROM transfers AS other
      WHERE other.study_instance_uid = whole.study_instance_uid AND other.calling_ae_title = whole.calling_ae_title
        AND (other.state = 'open'
             OR other.state = 'broken' AND other.series_instance_uid = whole.series_instance_uid
                AND other.ended_at > whole.began_at));

-- name: forget_transfers
-- Of a study of which nothing is open: its released ones have done their work, old broken ones say nothing any more.
DELETE FROM transfers
WHERE study_instance_uid = %(study_instance_uid)s AND calling_ae_title = %(calling_ae_title)s
  AND (state = 'released' OR state = 'broken' AND ended_at < clock_timestamp() - interval '1 day')
  AND NOT EXISTS (
      SELECT FROM transfers AS other
      WHERE other.study_instance_uid = transfers.study_instance_uid
        AND other.calling_ae_title = transfers.calling_ae_title AND other.state = 'open');

-- name: break_left_open
-- What a listener left open that was killed.
UPDATE transfers SET state = 'broken', ended_at = clock_timestamp() WHERE listener = %s AND state = 'open';

-- name: left_open
-- Associations that brought nothing for so long, or all that are open.
SELECT association FROM transfers LEFT JOIN series USING (study_instance_uid, series_instance_uid)
WHERE transfers.state = 'open'
GROUP BY association
HAVING %(seconds)s::float8 IS NULL
    OR max(greatest(began_at, last_received_at)) < clock_timestamp() - make_interval(secs => %(seconds)s::float8);
