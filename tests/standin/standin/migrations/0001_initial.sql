-- Table names follow GlitchTip's where an operator meets them (dumps, growth, partitions); columns are our own.
CREATE TABLE users_user (
    id bigserial PRIMARY KEY,
    email text NOT NULL UNIQUE,
    password text NOT NULL,
    name text NOT NULL DEFAULT '',
    is_superuser boolean NOT NULL DEFAULT false,
    is_active boolean NOT NULL DEFAULT true,
    email_verified boolean NOT NULL DEFAULT false,
    totp_secret text,
    totp_created timestamptz,
    last_login timestamptz,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE api_tokens_apitoken (
    id bigserial PRIMARY KEY,
    user_id bigint NOT NULL REFERENCES users_user ON DELETE CASCADE,
    label text NOT NULL DEFAULT '',
    token text NOT NULL UNIQUE,
    scopes integer NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE organizations_ext_organization (
    id bigserial PRIMARY KEY,
    name text NOT NULL,
    slug text NOT NULL UNIQUE,
    created timestamptz NOT NULL DEFAULT now(),
    is_accepting_events boolean NOT NULL DEFAULT true,
    event_throttle_rate integer NOT NULL DEFAULT 0,
    is_deleted boolean NOT NULL DEFAULT false
);
CREATE TABLE organizations_ext_organizationuser (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    user_id bigint REFERENCES users_user ON DELETE CASCADE,
    email text,
    role integer NOT NULL,
    is_owner boolean NOT NULL DEFAULT false,
    invite_token text,
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, user_id),
    UNIQUE (organization_id, email)
);
CREATE TABLE teams_team (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    slug text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, slug)
);
CREATE TABLE teams_team_members (
    team_id bigint NOT NULL REFERENCES teams_team ON DELETE CASCADE,
    organizationuser_id bigint NOT NULL REFERENCES organizations_ext_organizationuser ON DELETE CASCADE,
    PRIMARY KEY (team_id, organizationuser_id)
);
CREATE TABLE projects_project (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    name text NOT NULL,
    slug text NOT NULL,
    platform text,
    first_event timestamptz,
    event_throttle_rate integer NOT NULL DEFAULT 0,
    scrub_ip_addresses boolean NOT NULL DEFAULT true,
    issue_counter bigint NOT NULL DEFAULT 0,
    is_deleted boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, slug)
);
CREATE TABLE teams_team_projects (
    team_id bigint NOT NULL REFERENCES teams_team ON DELETE CASCADE,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    PRIMARY KEY (team_id, project_id)
);
CREATE TABLE projects_projectkey (
    id bigserial PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    public_key uuid NOT NULL UNIQUE,
    name text NOT NULL DEFAULT '',
    rate_limit jsonb,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE environments_environment (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    name text NOT NULL,
    is_hidden boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now(),
    UNIQUE (project_id, name)
);
CREATE TABLE issue_events_issue (
    id bigserial PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    short_id bigint NOT NULL,
    type text NOT NULL,
    level text NOT NULL,
    status text NOT NULL DEFAULT 'unresolved',
    title text NOT NULL,
    culprit text,
    metadata jsonb NOT NULL,
    count bigint NOT NULL DEFAULT 0,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    search_text text NOT NULL DEFAULT '',
    search_vector tsvector,
    is_deleted boolean NOT NULL DEFAULT false
);
CREATE INDEX ON issue_events_issue (project_id, last_seen);
CREATE INDEX ON issue_events_issue USING gin (search_vector);
CREATE TABLE issue_events_issuehash (
    id bigserial PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    issue_id bigint NOT NULL REFERENCES issue_events_issue ON DELETE CASCADE,
    value text NOT NULL,
    UNIQUE (project_id, value)
);
CREATE INDEX ON issue_events_issuehash (issue_id);
CREATE TABLE issue_events_issueevent (
    id uuid NOT NULL,
    issue_id bigint NOT NULL,
    project_id bigint NOT NULL,
    received timestamptz NOT NULL,
    timestamp timestamptz NOT NULL,
    type text NOT NULL,
    level text NOT NULL,
    title text NOT NULL,
    transaction text NOT NULL DEFAULT '',
    hash text NOT NULL,
    tags jsonb NOT NULL,
    metadata jsonb NOT NULL,
    data jsonb NOT NULL,
    PRIMARY KEY (id, received)
) PARTITION BY RANGE (received);
CREATE INDEX ON issue_events_issueevent (issue_id, received);
CREATE INDEX ON issue_events_issueevent (project_id, received);
CREATE TABLE issue_events_issuetag (
    issue_id bigint NOT NULL,
    day timestamptz NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (issue_id, key, value, day)
) PARTITION BY RANGE (day);
CREATE TABLE issue_events_comment (
    id bigserial PRIMARY KEY,
    issue_id bigint NOT NULL REFERENCES issue_events_issue ON DELETE CASCADE,
    user_id bigint REFERENCES users_user ON DELETE SET NULL,
    text text NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE alerts_projectalert (
    id bigserial PRIMARY KEY,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    name text NOT NULL DEFAULT '',
    timespan_minutes smallint CHECK (timespan_minutes >= 0),
    quantity smallint CHECK (quantity >= 0),
    uptime boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE alerts_alertrecipient (
    id bigserial PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES alerts_projectalert ON DELETE CASCADE,
    recipient_type text NOT NULL,
    url text NOT NULL DEFAULT '',
    tags_to_add text[] NOT NULL DEFAULT '{}',
    UNIQUE (alert_id, recipient_type, url)
);
CREATE TABLE alerts_notification (
    id bigserial PRIMARY KEY,
    alert_id bigint NOT NULL REFERENCES alerts_projectalert ON DELETE CASCADE,
    is_sent boolean NOT NULL DEFAULT false,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE alerts_notification_issues (
    notification_id bigint NOT NULL REFERENCES alerts_notification ON DELETE CASCADE,
    issue_id bigint NOT NULL REFERENCES issue_events_issue ON DELETE CASCADE,
    PRIMARY KEY (notification_id, issue_id)
);
CREATE INDEX ON alerts_notification_issues (issue_id);
-- Queue and scheduler bookkeeping when PostgreSQL is the broker.
CREATE TABLE db_queuedtask (
    id bigserial PRIMARY KEY,
    body text NOT NULL,
    taken_at timestamptz,
    created timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE db_vtaskmetadata (
    key text PRIMARY KEY,
    value text NOT NULL
);
