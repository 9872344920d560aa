-- One window a destination: who sends to it now, and, where it does not answer, when it may be tried next. Then the
-- destination's word that it keeps what it was sent: storage commitment (PS3.4 annex J).

CREATE TABLE destination_windows (
    destination          text PRIMARY KEY,
    address              text NOT NULL,                       -- of whom this holds: another peer is another matter
    failures             integer NOT NULL DEFAULT 0,          -- attempts in a row that found it down
    down_since           timestamptz,                         -- NULL: it answered last
    next_attempt_at      timestamptz,                         -- nobody connects to it before
    code                 text NOT NULL DEFAULT '',
    reason               text NOT NULL DEFAULT '',
    holder               text,                                -- the task whose turn it is; NULL: nobody's
    turn                 bigint NOT NULL DEFAULT 0,           -- the fence: one more each time the turn is taken
    leased_until         timestamptz                          -- a holder that did not say more until then is gone
);

ALTER TABLE deliveries ADD COLUMN tries integer NOT NULL DEFAULT 0;  -- attempts that count against the maximum
UPDATE deliveries SET tries = attempts;
ALTER TABLE deliveries ADD COLUMN is_unknown boolean NOT NULL DEFAULT false;  -- nobody learned the last outcome
UPDATE deliveries SET is_unknown = true WHERE state = 'sending' OR code = 'no-answer';
ALTER TABLE deliveries ADD COLUMN commitment_rounds integer NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN committed_at timestamptz;
DROP INDEX deliveries_open;
CREATE INDEX deliveries_open ON deliveries (destination) WHERE state IN ('waiting', 'sending', 'committing');

CREATE TABLE commitments (
    transaction_uid      text PRIMARY KEY,                    -- ours, written before it leaves
    job_id               uuid NOT NULL REFERENCES jobs ON DELETE CASCADE,
    destination          text NOT NULL,
    requested_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX commitments_of_job ON commitments (job_id);

CREATE TABLE commitment_objects (
    transaction_uid      text NOT NULL REFERENCES commitments ON DELETE CASCADE,
    digest               text NOT NULL,
    sop_instance_uid     text NOT NULL,
    PRIMARY KEY (transaction_uid, digest)
);

CREATE TABLE commitment_reports (
    number               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction_uid      text NOT NULL REFERENCES commitments ON DELETE CASCADE,
    committed            text[] NOT NULL,                     -- SOP Instance UIDs
    refused              text[] NOT NULL,                     -- SOP Instance UIDs, in the order of `reasons`
    reasons              integer[] NOT NULL,                  -- Failure Reason (PS3.3 C.14)
    received_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_at           timestamptz
);
CREATE INDEX commitment_reports_open ON commitment_reports (transaction_uid) WHERE applied_at IS NULL;
