-- Results that were withdrawn after a destination got them: by whom, when and why, and the rejection note that says so
-- there. The job keeps its state; what had not been sent yet ends as cancelled.

CREATE TABLE withdrawals (
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    destination          text NOT NULL,
    reason               text NOT NULL,                       -- as operators/results/rejection_note.py names them
    person               text NOT NULL,                       -- the operating system's name of the user
    withdrawn_at         timestamptz NOT NULL,
    objects              integer NOT NULL,                    -- how many the destination has, or may have
    digest               text NOT NULL DEFAULT '',            -- the note among the job's results; '' where there is none
    code                 text NOT NULL DEFAULT '',            -- why there is none
    message              text NOT NULL DEFAULT '',
    PRIMARY KEY (job_id, destination)
);
