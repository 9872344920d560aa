-- What is asked each time a series is decided, and what waits each time a sender asks for an association: neither may
-- cost more with each result and job that is kept.

CREATE INDEX results_by_instance ON results (sop_instance_uid);
CREATE INDEX jobs_queued ON jobs (state) WHERE state = 'queued';
