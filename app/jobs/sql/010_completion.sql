-- What is known of a series' being complete beside its quiet time: what an archive said that it has, which associations
-- are still open, and whether they were released; and which job takes the place of which.

ALTER TABLE series ADD COLUMN released_at timestamptz;         -- when the last association that brought it was released
ALTER TABLE series ADD COLUMN waits_for text;                  -- what a complete series' decision waits for, in words
ALTER TABLE series DROP CONSTRAINT series_state_check;
ALTER TABLE series ADD CONSTRAINT series_state_check CHECK (state IN (
    'receiving', 'waiting-for-study', 'routed', 'no-rule', 'no-channel', 'own-result', 'unreadable', 'incomplete'
));

-- One row a study: the last question about it.
CREATE TABLE questions (
    study_instance_uid   text PRIMARY KEY,
    archive              text NOT NULL,                        -- its name in the settings
    asks                 integer NOT NULL,                     -- since the last content came
    asked_at             timestamptz NOT NULL,
    answered_at          timestamptz,                          -- of the last question that was answered: when it was asked
    code                 text NOT NULL                         -- 'asking', '' once answered, else why there was no answer
);

-- What the last answer was.
CREATE TABLE expected_series (
    study_instance_uid   text NOT NULL REFERENCES questions ON DELETE CASCADE,
    series_instance_uid  text NOT NULL,
    instances            integer NOT NULL,
    PRIMARY KEY (study_instance_uid, series_instance_uid)
);

-- Which associations bring which series. What has ended is kept as long as it says something about an open one.
CREATE TABLE transfers (
    association          uuid NOT NULL,
    study_instance_uid   text NOT NULL,
    series_instance_uid  text NOT NULL,
    calling_ae_title     text NOT NULL,
    listener             text NOT NULL,                        -- whose start ends what it left open
    state                text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'released', 'broken')),
    began_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at             timestamptz,
    PRIMARY KEY (association, study_instance_uid, series_instance_uid)
);
CREATE INDEX transfers_of_study ON transfers (study_instance_uid);

-- A job whose series got more content, and the job that was made of the whole.
ALTER TABLE jobs ADD COLUMN superseded_by uuid REFERENCES jobs ON DELETE SET NULL;
ALTER TABLE jobs ADD COLUMN superseded_at timestamptz;
CREATE INDEX jobs_superseded ON jobs (superseded_by) WHERE superseded_by IS NOT NULL;

-- Own results that came back to their archive are no series that have still to come.
CREATE INDEX results_by_series ON results (series_instance_uid);
