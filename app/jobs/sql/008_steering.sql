-- What people do to jobs in progress: cancel, replay, pause.

ALTER TABLE jobs ADD COLUMN cancelled_in text NOT NULL DEFAULT '';             -- what a cancelled job was; a replay goes on there

CREATE TABLE pauses (
    kind       text NOT NULL CHECK (kind IN ('everything', 'pipeline', 'destination')),
    name       text NOT NULL,                              -- of the pipeline or destination; empty for everything
    person     text NOT NULL,                              -- who gave the command
    paused_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name)
);
