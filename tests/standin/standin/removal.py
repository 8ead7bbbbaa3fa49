"""What the worker removes: organizations, projects, issues, old partitions."""

from __future__ import annotations

from . import db, state


def organization(number: int) -> None:
    """Remove a deleted organization with all that it holds."""
    for row in db.rows("SELECT id FROM projects_project WHERE organization_id = %s", [number]):
        project(row["id"])
    db.execute("DELETE FROM organizations_ext_organization WHERE id = %s AND is_deleted", [number])


def project(number: int) -> None:
    """Remove a project; its slug is free from now on."""
    with db.transaction():
        db.execute("DELETE FROM issue_events_issueevent WHERE project_id = %s", [number])
        db.execute(
            "DELETE FROM issue_events_issuetag WHERE issue_id IN"
            " (SELECT id FROM issue_events_issue WHERE project_id = %s)",
            [number],
        )
        db.execute("DELETE FROM projects_project WHERE id = %s", [number])


def issues(numbers: list[int]) -> None:
    """Remove issues that were marked as deleted."""
    with db.transaction():
        db.execute("DELETE FROM issue_events_issueevent WHERE issue_id = ANY(%s)", [numbers])
        db.execute("DELETE FROM issue_events_issuetag WHERE issue_id = ANY(%s)", [numbers])
        db.execute("DELETE FROM issue_events_issue WHERE id = ANY(%s) AND is_deleted", [numbers])


def maintenance() -> None:
    """Daily: make the partitions ahead, drop those past the life time of events, and issues without
    events."""
    db.ensure_partitions()
    days = state.get().settings.max_event_life_days
    if db.drop_partitions(days):
        db.execute(
            "DELETE FROM issue_events_issue WHERE last_seen < now() - make_interval(days => %s)", [days]
        )
