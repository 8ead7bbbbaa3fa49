-- The 6.x line keeps what a zulip recipient needs beside its URL; tags may be null on both.
ALTER TABLE alerts_alertrecipient ADD COLUMN config jsonb NOT NULL DEFAULT '{}';
ALTER TABLE alerts_alertrecipient ALTER COLUMN tags_to_add DROP NOT NULL;
