-- The statements of app/jobs/served_queues.py. A statement starts at its `-- name:` line.
-- What a process serves is shown by advisory locks that processes share, one a queue.

-- name: show
SELECT pg_advisory_lock_shared(hashtext('limner queues'), hashtext(queue)) FROM unnest(%s::text[]) AS queue;

-- name: are_served
-- No row at all while a worker is there that does not show what it serves.
WITH held AS MATERIALIZED (
    SELECT pid, classid::bigint AS class, objid::bigint AS number, objsubid FROM pg_locks
    WHERE locktype = 'advisory' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
), shown AS (
    SELECT pid, number FROM held
    WHERE objsubid = 2 AND class = (hashtext('limner queues')::bigint & 4294967295)
)
SELECT queue, EXISTS (SELECT FROM shown WHERE number = (hashtext(queue)::bigint & 4294967295)) AS is_served
FROM unnest(%(queues)s::text[]) AS queue
WHERE (SELECT count(DISTINCT pid) FROM held WHERE objsubid = 1 AND class = 0 AND number = %(workers)s)
      <= (SELECT count(DISTINCT pid) FROM shown);
