-- A generalist beside the specialist: what each found, how far they agree, and jobs that wait for a person's decision.

ALTER TABLE jobs ADD COLUMN generalist_name text NOT NULL DEFAULT '';     -- '' where the specialist runs alone
ALTER TABLE jobs ADD COLUMN generalist_version text NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN generalist_digest text NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN on_disagreement text NOT NULL DEFAULT 'warn'
    CHECK (on_disagreement IN ('warn', 'hold', 'both'));
ALTER TABLE jobs ADD COLUMN flag text NOT NULL DEFAULT '' CHECK (flag IN ('', 'disagreement', 'generalist-failed'));
ALTER TABLE jobs ADD COLUMN flag_reason text NOT NULL DEFAULT '';
ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check
    CHECK (state IN ('queued', 'running', 'held', 'delivering', 'closed', 'failed', 'refused', 'discarded'));

ALTER TABLE results ADD COLUMN role text NOT NULL DEFAULT 'specialist' CHECK (role IN ('specialist', 'generalist'));

ALTER TABLE deliveries DROP CONSTRAINT deliveries_state_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_state_check
    CHECK (state IN ('held', 'waiting', 'sending', 'delivered', 'failed', 'discarded'));

CREATE TABLE findings (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    role                 text NOT NULL CHECK (role IN ('specialist', 'generalist')),
    number               integer NOT NULL,                    -- Segment Number
    label                text NOT NULL,
    code                 text NOT NULL,                       -- as the Standard writes codes
    volume_ml            double precision NOT NULL,
    PRIMARY KEY (job_id, role, number)
);

CREATE TABLE agreement (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    number               integer NOT NULL,                    -- Segment Number
    label                text NOT NULL,
    dice                 double precision NOT NULL,
    distance_mm          double precision,                    -- null where only one of the two found the segment
    difference_ml        double precision NOT NULL,           -- the generalist's less the specialist's
    difference_percent   double precision,                    -- of the specialist's; null where that found nothing
    beyond               text[] NOT NULL,                     -- the limits that it lies beyond
    PRIMARY KEY (job_id, number)
);
