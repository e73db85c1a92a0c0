-- V2 kept the current job twice, and was in no release; there is no way from it to here but to migrate anew.
--
-- What a row remembers of the events that reached it: the job and the place of the newest, which guards against older
-- ones, and the 15 newest jobs before that, which make a second delivery a duplicate. In the row and not in a table of
-- its own, because the row is rewritten anyway. Nothing stands there twice: most drafts have one job, and no
-- lists, which then take no space.
--
-- Every default is a constant: PostgreSQL notes it in its catalog and rewrites no row, so that this takes milliseconds
-- on a table of any size. It needs the table's lock for that moment, and gives up rather than queue for it.
ALTER TABLE :table
    ADD COLUMN IF NOT EXISTS content_job_id           text,
    ADD COLUMN IF NOT EXISTS content_event_at         timestamptz NOT NULL DEFAULT '-infinity',
    ADD COLUMN IF NOT EXISTS content_event_offset     bigint      NOT NULL DEFAULT -1,
    ADD COLUMN IF NOT EXISTS content_event_partition  integer     NOT NULL DEFAULT -1,
    ADD COLUMN IF NOT EXISTS content_older_jobs       text[],
    ADD COLUMN IF NOT EXISTS content_older_positions  bigint[];

COMMENT ON COLUMN :table.content_job_id IS
    'contentflow: the job whose images are the current content_images';
COMMENT ON COLUMN :table.content_event_at IS
    'contentflow: the Kafka timestamp of the newest event applied; an older event changes nothing';
COMMENT ON COLUMN :table.content_event_offset IS
    'contentflow: the offset of that event, for events with the same timestamp';
COMMENT ON COLUMN :table.content_event_partition IS
    'contentflow: the partition of that event, for events with the same timestamp and offset';
COMMENT ON COLUMN :table.content_older_jobs IS
    'contentflow: jobs older than content_job_id that reached this row, newest first, at most 15; they are duplicates, too; NULL: none';
COMMENT ON COLUMN :table.content_older_positions IS
    'contentflow: three numbers for each of content_older_jobs: timestamp in ms since the epoch, offset, partition';
