-- What came in, what was decided, what was made of it and where it went. Rows hold UIDs, paths and digests, never pixels
-- and no patient's data. Times are the database's clock.

CREATE TABLE instances (
    number               bigint GENERATED ALWAYS AS IDENTITY,  -- the order of arrival
    sop_instance_uid     text NOT NULL,
    digest               text NOT NULL,                        -- SHA-256 of the file; its name in the spool
    sop_class_uid        text NOT NULL,
    transfer_syntax_uid  text NOT NULL,
    series_instance_uid  text NOT NULL,
    study_instance_uid   text NOT NULL,
    size_bytes           bigint NOT NULL,
    calling_ae_title     text NOT NULL,
    source_host          text NOT NULL,
    received_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sop_instance_uid, digest)
);
CREATE INDEX instances_of_series ON instances (study_instance_uid, series_instance_uid);
CREATE INDEX instances_by_digest ON instances (digest);

CREATE TABLE series (
    study_instance_uid   text NOT NULL,
    series_instance_uid  text NOT NULL,
    state                text NOT NULL
        CHECK (state IN ('receiving', 'waiting-for-study', 'routed', 'no-rule', 'unreadable')),
    revision             integer NOT NULL DEFAULT 1,           -- one more each time content comes after the decision
    calling_ae_title     text NOT NULL,                        -- of the latest instance
    first_received_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at           timestamptz,
    rule                 text,
    reason               text,
    PRIMARY KEY (study_instance_uid, series_instance_uid)
);
CREATE INDEX series_undecided ON series (state) WHERE state IN ('receiving', 'waiting-for-study');

CREATE TABLE jobs (
    id                   uuid PRIMARY KEY,
    key                  text NOT NULL UNIQUE,                 -- SHA-256 of inputs, pipeline, model and program
    study_instance_uid   text NOT NULL,
    series_instance_uid  text NOT NULL,
    series_revision      integer NOT NULL,
    rule                 text NOT NULL,
    pipeline             text NOT NULL,
    model_name           text NOT NULL,
    model_version        text NOT NULL,
    weights_digest       text NOT NULL,
    destinations         text[] NOT NULL,
    priority             integer NOT NULL DEFAULT 0,
    state                text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'delivering', 'closed', 'failed', 'refused')),
    attempt              integer NOT NULL DEFAULT 0,           -- the fence: only the latest attempt may write
    tries                integer NOT NULL DEFAULT 0,           -- attempts that count against the pipeline's maximum
    code                 text NOT NULL DEFAULT '',
    reason               text NOT NULL DEFAULT '',
    progress_step        text NOT NULL DEFAULT '',
    progress_done        integer NOT NULL DEFAULT 0,
    progress_total       integer NOT NULL DEFAULT 0,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at           timestamptz,                          -- of the latest attempt
    finished_at          timestamptz,
    FOREIGN KEY (study_instance_uid, series_instance_uid) REFERENCES series
);
CREATE INDEX jobs_of_series ON jobs (study_instance_uid, series_instance_uid);
CREATE INDEX jobs_by_time ON jobs (created_at DESC);

CREATE TABLE job_inputs (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    sop_instance_uid     text NOT NULL,
    digest               text NOT NULL,
    PRIMARY KEY (job_id, sop_instance_uid),
    FOREIGN KEY (sop_instance_uid, digest) REFERENCES instances
);
CREATE INDEX job_inputs_by_digest ON job_inputs (digest);

CREATE TABLE results (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    digest               text NOT NULL,
    attempt              integer NOT NULL,
    path                 text NOT NULL,
    sop_class_uid        text NOT NULL,
    sop_instance_uid     text NOT NULL,
    series_instance_uid  text NOT NULL,
    transfer_syntax_uid  text NOT NULL,
    PRIMARY KEY (job_id, digest)
);

CREATE TABLE deliveries (
    job_id               uuid NOT NULL,
    digest               text NOT NULL,
    destination          text NOT NULL,
    state                text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'delivered', 'failed')),
    attempts             integer NOT NULL DEFAULT 0,           -- also the fence
    code                 text NOT NULL DEFAULT '',
    reason               text NOT NULL DEFAULT '',
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_attempt_at      timestamptz,
    next_attempt_at      timestamptz,
    finished_at          timestamptz,
    PRIMARY KEY (job_id, digest, destination),
    FOREIGN KEY (job_id, digest) REFERENCES results ON DELETE CASCADE
);
CREATE INDEX deliveries_open ON deliveries (destination) WHERE state IN ('waiting', 'sending');

CREATE TABLE steps (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    attempt              integer NOT NULL,
    step                 text NOT NULL,
    seconds              double precision NOT NULL,
    recorded_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job_id, attempt, step)
);
