-- An invitation's link is signed, not stored, and stays valid after it was followed.
ALTER TABLE organizations_ext_organizationuser DROP COLUMN invite_token;
ALTER TABLE users_user ADD COLUMN subscribe_by_default boolean NOT NULL DEFAULT true;
ALTER TABLE users_user ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
CREATE TABLE releases_release (
    id bigserial PRIMARY KEY,
    organization_id bigint NOT NULL REFERENCES organizations_ext_organization ON DELETE CASCADE,
    version varchar(255) NOT NULL,
    ref varchar(255),
    url text,
    released timestamptz,
    data jsonb NOT NULL DEFAULT '{}',
    deploy_count integer NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (organization_id, version)
);
CREATE TABLE releases_releaseproject (
    id bigserial PRIMARY KEY,
    release_id bigint NOT NULL REFERENCES releases_release ON DELETE CASCADE,
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    UNIQUE (release_id, project_id)
);
