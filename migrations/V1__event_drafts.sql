-- The drafts, for an installation that has no such table yet. An existing one is left as it is, whatever the type of
-- its event_draft_id: text, varchar, uuid, bigint or integer.
--
-- :table is the name in `database.table`, with its schema. `contentflow migrate` puts it in; so does
-- `psql -v table=public.event_drafts -f`.
CREATE TABLE IF NOT EXISTS :table (
    event_draft_id text PRIMARY KEY,
    title          text,
    content_images jsonb,
    created_at     timestamptz NOT NULL DEFAULT now(),
    updated_at     timestamptz NOT NULL DEFAULT now()
);
