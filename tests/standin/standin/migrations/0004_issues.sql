-- Hourly counts, and what the 6.x line knows of an issue beyond 5.2.
CREATE TABLE projects_issueeventprojecthourlystatistic (
    project_id bigint NOT NULL REFERENCES projects_project ON DELETE CASCADE,
    date timestamptz NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (project_id, date)
);
CREATE TABLE issue_events_issueaggregate (
    issue_id bigint NOT NULL REFERENCES issue_events_issue ON DELETE CASCADE,
    date timestamptz NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (issue_id, date)
);
ALTER TABLE issue_events_issue
    ADD COLUMN first_release text,
    ADD COLUMN last_release text,
    ADD COLUMN resolved_in_release text,
    ADD COLUMN assigned_to_user_id bigint REFERENCES users_user ON DELETE SET NULL,
    ADD COLUMN assigned_to_team_id bigint REFERENCES teams_team ON DELETE SET NULL,
    ADD CHECK (assigned_to_user_id IS NULL OR assigned_to_team_id IS NULL);
