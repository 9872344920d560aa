-- What the gate before the model let pass or put in order of a job's input. Messages hold no patient's data.

CREATE TABLE notes (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    number               integer NOT NULL,
    code                 text NOT NULL,                       -- the check's
    policy               text NOT NULL CHECK (policy IN ('warn', 'repair')),
    message              text NOT NULL,
    PRIMARY KEY (job_id, number)
);
