-- How many deliveries were ever made for a job, so that the account misses one that is gone before it was tried. Null for
-- the jobs of programs that do not count them.

ALTER TABLE jobs ADD COLUMN deliveries_made integer;
