-- The 6.2 line without Valkey: which queue a task is in, and what became of it.
ALTER TABLE db_queuedtask
    ADD COLUMN queue text NOT NULL DEFAULT 'default',
    ADD COLUMN status text NOT NULL DEFAULT 'QUEUED',
    ADD COLUMN worker_id text,
    ADD COLUMN run_after timestamptz;
ALTER TABLE db_vtaskmetadata ADD COLUMN expires_at timestamptz;
-- Monitors of the 6.2 line: failures in a row that count as down, and intervals of up to a day.
ALTER TABLE uptime_monitor
    ADD COLUMN confirmation_threshold smallint NOT NULL DEFAULT 1,
    ALTER COLUMN "interval" TYPE integer;
-- Log items of SDKs, which the 6.2 line stores.
CREATE TABLE logs_logevent (
    id bigserial PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    received timestamptz NOT NULL DEFAULT now(),
    data jsonb NOT NULL
);
