-- How jobs and deliveries may end or wait beside what they could before: cancelled by a person, given up after the
-- pipeline's attempts and kept for a replay, overtaken by a newer revision of their series, or taken by a destination
-- that has still to commit itself to keeping it.

ALTER TABLE jobs DROP CONSTRAINT jobs_state_check;
ALTER TABLE jobs ADD CONSTRAINT jobs_state_check CHECK (state IN (
    'queued', 'running', 'held', 'delivering', 'closed', 'failed', 'refused', 'discarded',
    'cancelled', 'dead-letter', 'superseded'
));

ALTER TABLE deliveries DROP CONSTRAINT deliveries_state_check;
ALTER TABLE deliveries ADD CONSTRAINT deliveries_state_check CHECK (state IN (
    'held', 'waiting', 'sending', 'delivered', 'failed', 'discarded', 'replaced',
    'cancelled', 'committing', 'committed'
));
