-- What a row remembers of the events that reached it: the place of the newest, which guards against older ones, and
-- the 16 newest jobs, which make a second delivery a duplicate. In the row and not in a table of its own, because the
-- row is rewritten anyway.
--
-- Every default is a constant: PostgreSQL notes it in its catalog and rewrites no row, so that this takes milliseconds
-- on a table of any size. It needs the table's lock for that moment, and gives up rather than queue for it.
ALTER TABLE :table
    ADD COLUMN IF NOT EXISTS content_job_id           text,
    ADD COLUMN IF NOT EXISTS content_event_at         timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN IF NOT EXISTS content_event_offset     bigint      NOT NULL DEFAULT -1,
    ADD COLUMN IF NOT EXISTS content_event_partition  integer     NOT NULL DEFAULT -1,
    ADD COLUMN IF NOT EXISTS content_recent_jobs      text[]      NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS content_recent_positions bigint[]    NOT NULL DEFAULT '{}';

COMMENT ON COLUMN :table.content_job_id IS
    'contentflow: the job whose images are the current content_images';
COMMENT ON COLUMN :table.content_event_at IS
    'contentflow: the Kafka timestamp of the newest event applied; an older event changes nothing';
COMMENT ON COLUMN :table.content_event_offset IS
    'contentflow: the offset of that event, for events with the same timestamp';
COMMENT ON COLUMN :table.content_event_partition IS
    'contentflow: the partition of that event, for events with the same timestamp and offset';
COMMENT ON COLUMN :table.content_recent_jobs IS
    'contentflow: the newest jobs that reached this row, newest first, at most 16; a job among them is a duplicate';
COMMENT ON COLUMN :table.content_recent_positions IS
    'contentflow: three numbers for each of content_recent_jobs: timestamp in ms since the epoch, offset, partition';
