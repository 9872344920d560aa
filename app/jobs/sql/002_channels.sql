-- Models with several input channels: a job has inputs of several series, each bound to a channel. A series that a rule
-- took and that fits none of its channels ends in a state of its own.

ALTER TABLE job_inputs ADD COLUMN channel text NOT NULL DEFAULT '';  -- '' where the model's only channel was not named
ALTER TABLE job_inputs DROP CONSTRAINT job_inputs_pkey;
-- a refused job may hold one instance under two channels, and two contents of one SOP Instance UID from two series
ALTER TABLE job_inputs ADD PRIMARY KEY (job_id, channel, sop_instance_uid, digest);

ALTER TABLE series DROP CONSTRAINT series_state_check;
ALTER TABLE series ADD CONSTRAINT series_state_check
    CHECK (state IN ('receiving', 'waiting-for-study', 'routed', 'no-rule', 'no-channel', 'unreadable'));
