-- Results of several kinds, the forms that a destination takes, and Limner's own results that come back.

ALTER TABLE results ADD COLUMN kind text NOT NULL DEFAULT 'segmentation';  -- as operators/object_kinds.py names them

ALTER TABLE deliveries DROP CONSTRAINT deliveries_state_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_state_check
    CHECK (state IN ('held', 'waiting', 'sending', 'delivered', 'failed', 'discarded', 'replaced'));

ALTER TABLE series DROP CONSTRAINT series_state_check;
ALTER TABLE series ADD CONSTRAINT series_state_check CHECK (state IN (
    'receiving', 'waiting-for-study', 'routed', 'no-rule', 'no-channel', 'own-result', 'unreadable'
));

CREATE TABLE destination_profiles (
    destination          text PRIMARY KEY,
    address              text NOT NULL,                       -- who was asked: a profile of another peer says nothing
    asked_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted             text[] NOT NULL                      -- kinds, as operators/object_kinds.py names them
);
