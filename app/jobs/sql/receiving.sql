-- The statements of app/jobs/records/receiving.py. A statement starts at its `-- name:` line.

-- name: record_instance
-- One statement, one commit: the instance's row, and its series back to receiving. A known instance changes nothing,
-- unless its file was removed for its age: then it is received anew, as content is that comes after the decision, and
-- makes a new revision of the series. Content other than was known of the instance is recorded only once that is told;
-- it returns whether it is to be told first.
-- What was adopted after a crash has no source: its series keeps the one that it has, and its sender says it by a repeat.
WITH other AS (
    SELECT EXISTS (SELECT FROM instances WHERE sop_instance_uid = %(sop_instance_uid)s AND digest <> %(digest)s)
           AND NOT EXISTS (SELECT FROM instances WHERE sop_instance_uid = %(sop_instance_uid)s
                           AND digest = %(digest)s AND pruned_at IS NULL)
           AND NOT %(is_told)s::boolean AS is_to_be_told
), fresh AS (
    INSERT INTO instances (sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid, series_instance_uid,
                           study_instance_uid, size_bytes, calling_ae_title, source_host)
    SELECT %(sop_instance_uid)s, %(digest)s, %(sop_class_uid)s, %(transfer_syntax_uid)s, %(series_instance_uid)s,
           %(study_instance_uid)s, %(size_bytes)s::bigint, %(calling_ae_title)s, %(source_host)s
    FROM other WHERE NOT is_to_be_told
    ON CONFLICT (sop_instance_uid, digest) DO UPDATE SET pruned_at = NULL WHERE instances.pruned_at IS NOT NULL
    RETURNING study_instance_uid, series_instance_uid, calling_ae_title
), named_instance AS (
    UPDATE instances SET calling_ae_title = %(calling_ae_title)s, source_host = %(source_host)s
    WHERE sop_instance_uid = %(sop_instance_uid)s AND digest = %(digest)s
      AND calling_ae_title = '' AND %(calling_ae_title)s <> '' AND NOT EXISTS (SELECT FROM fresh)
), named_series AS (
    UPDATE series SET calling_ae_title = %(calling_ae_title)s
    WHERE study_instance_uid = %(study_instance_uid)s AND series_instance_uid = %(series_instance_uid)s
      AND calling_ae_title = '' AND %(calling_ae_title)s <> '' AND NOT EXISTS (SELECT FROM fresh)
      AND NOT (SELECT is_to_be_told FROM other)
), receiving AS (
    INSERT INTO series (study_instance_uid, series_instance_uid, state, calling_ae_title)
    SELECT study_instance_uid, series_instance_uid, 'receiving', calling_ae_title FROM fresh
    ON CONFLICT (study_instance_uid, series_instance_uid) DO UPDATE SET
        last_received_at = clock_timestamp(),
        calling_ae_title = coalesce(nullif(EXCLUDED.calling_ae_title, ''), series.calling_ae_title),
        revision = series.revision + CASE WHEN series.state IN ('receiving', 'waiting-for-study') THEN 0 ELSE 1 END,
        state = 'receiving'
)
SELECT is_to_be_told FROM other;

-- name: unknown_digests
-- Also those that came back and were not recorded; not those that are about to be removed.
SELECT digest FROM unnest(%s::text[]) AS spooled (digest)
WHERE NOT EXISTS (SELECT 1 FROM instances WHERE instances.digest = spooled.digest AND pruned_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM removals WHERE kind = 'instance' AND name = spooled.digest);

-- name: backlog
SELECT (SELECT count(*) FROM series WHERE state IN ('receiving', 'waiting-for-study'))
     + (SELECT count(*) FROM jobs WHERE state = 'queued') AS waiting;
