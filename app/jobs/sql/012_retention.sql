-- What was removed from the disk for its age or for want of space. A row is never removed with its file: the account
-- must agree for ever.

ALTER TABLE instances ADD COLUMN pruned_at timestamptz;       -- its file was removed from the spool; null where it is kept
CREATE INDEX instances_kept ON instances (study_instance_uid) WHERE pruned_at IS NULL;

ALTER TABLE results ADD COLUMN pruned_at timestamptz;         -- its file was removed with the job's folder

-- Files that are recorded as removed and may lie there still: the record comes first, then the file goes, then this row.
CREATE TABLE removals (
    kind                 text NOT NULL CHECK (kind IN ('instance', 'results')),
    name                 text NOT NULL,                       -- an instance's digest, or the id of a job
    recorded_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name)
);
