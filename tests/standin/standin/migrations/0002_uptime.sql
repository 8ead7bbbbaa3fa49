-- Uptime monitors, their checks and the status pages.
CREATE TABLE uptime_monitor (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    project_id bigint REFERENCES projects_project ON DELETE SET NULL,
    monitor_type varchar(12) NOT NULL,
    endpoint_id uuid UNIQUE,
    name varchar(200) NOT NULL,
    url varchar(2000) NOT NULL DEFAULT '',
    expected_status smallint CHECK (expected_status >= 0),
    expected_body varchar(2000) NOT NULL DEFAULT '',
    "interval" smallint NOT NULL DEFAULT 60 CHECK ("interval" >= 0),
    timeout smallint CHECK (timeout >= 0),
    created timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON uptime_monitor (organization_id, created);
CREATE TABLE uptime_monitorcheck (
    id bigserial,
    monitor_id bigint NOT NULL REFERENCES uptime_monitor ON DELETE CASCADE,
    is_up boolean NOT NULL,
    is_change boolean NOT NULL,
    start_check timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason smallint,
    response_time integer,
    PRIMARY KEY (id, start_check)
) PARTITION BY RANGE (start_check);
CREATE INDEX ON uptime_monitorcheck (monitor_id, start_check);
CREATE TABLE uptime_statuspage (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    name varchar(200) NOT NULL,
    slug text NOT NULL,
    is_public boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (organization_id, slug)
);
-- How often the dispatcher ran; the real server counts in Valkey.
CREATE SEQUENCE uptime_counter;
