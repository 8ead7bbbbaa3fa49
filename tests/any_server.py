"""Servers that the API can make, as hypothesis draws them: what an export has to cope with.

A recipe is plain data; `build` makes it through the client's plain requests, without the checks of `ensure_*`.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from glitchtip_api import Client
from glitchtip_api.resources.base import path_of

Recipe = dict[str, Any]
#: Few enough that names are drawn twice.
AWKWARD = (
    "Shop",
    "Shop",
    "SHOP",
    "shop-2",
    "new",
    "Заказы",
    "Товары",
    "🚀",
    "日本語 🚀 Ünïcode",
    "{{ 1 + 1 }}",
    "{{ lookup('pipe', 'touch /tmp/ran') }}",
    "{% if 1 %}x{% endif %}",
    "{# note #}",
    "}} {{",
    "#jinja2: variable_start_string:'[%'",
    "#jinja2: block_start_string:'[%'\n[% if 1 %}ran",
    "!unsafe x",
    "a: b",
    "- x",
    "no",
    "1",
    "null",
    "~",
    " spaced ",
    "",
    "   ",
    "tab\tquote\"'\\",
    "line\nbreak",
    "next\x85line\u2028and\u2029paragraph",
    "\x01\x7f\x85\u2028\ufeff",
    "*",
    "&a",
)
_TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=24)
NAMES = st.one_of(st.sampled_from(AWKWARD), st.sampled_from(AWKWARD), _TEXT)
TEAMS = ("crew", "ops", "Backend", "x" * 50, "_")
EMAILS = ("dev@example.org", "ops@example.org", "Upper.Case@example.org")
_QUERIES = ("", "?token=canary", "?x={{ 1 + 1 }}")
_LATE = ("teams", "ntfy", "feishu")


def recipients(line: str) -> st.SearchStrategy[list[Recipe]]:
    """A list of every kind that the line knows, none twice."""
    hosts = st.sampled_from(("hooks.example.org/a", "hooks.example.org", "h.example.org/б"))
    url = st.builds(lambda host, query: f"https://{host}{query}", hosts, st.sampled_from(_QUERIES))
    tags = st.one_of(st.just({}), st.lists(NAMES, max_size=2).map(lambda found: {"tagsToAdd": found}))
    kinds = ["webhook", "discord", "googlechat", *(() if line == "5.2" else _LATE)]
    hook = st.builds(
        lambda kind, address, more: {"recipientType": kind, "url": address, **more},
        st.sampled_from(kinds),
        url,
        tags,
    )
    email = tags.map(lambda more: {"recipientType": "email", "url": "", **more})
    choices = [hook, email]
    if line != "5.2":
        topic = st.sampled_from(({}, {"topic": "GlitchTip Alerts"}, {"topic": "{{ topic }}"}, {"topic": ""}))
        choices.append(
            st.builds(
                lambda address, key, more: {
                    "recipientType": "zulip",
                    "url": address,
                    "botEmail": "bot@example.org",
                    "apiKey": key,
                    "channel": "ops 🚀",
                    **more,
                },
                url,
                st.sampled_from(("canary-api-key", "{{ key }}")),
                topic,
            )
        )
    return st.lists(
        st.one_of(choices), max_size=3, unique_by=lambda one: (one["recipientType"], _normal(one["url"]))
    )


def _normal(url: str) -> str:
    return url.replace("example.org?", "example.org/?").removesuffix("/")


def alerts(line: str) -> st.SearchStrategy[Recipe]:
    """Rules, also such as never fire and such as have no recipients."""
    return st.fixed_dictionaries(
        {
            "name": NAMES,
            "quantity": st.sampled_from((None, 0, 1, 32767)),
            "timespanMinutes": st.sampled_from((None, 0, 5)),
            "uptime": st.booleans(),
            "alertRecipients": recipients(line),
        }
    )


def monitors(line: str, longest: int) -> st.SearchStrategy[Recipe]:
    """Every kind, with intervals up to `longest` seconds."""
    more = st.just({}) if line == "5.2" else st.sampled_from(({}, {"confirmationThreshold": 3}))
    kinds: list[tuple[str, str | None, int | None]] = [
        ("Ping", "https://www.example.org/a?key=canary", None),
        ("GET", "https://user:canary@www.example.org/{{x}}", 200),
        ("POST", "https://www.example.org/", 201),
        ("TCP Port", "db.example.org:5432", None),
        ("SSL", "https://www.example.org/", None),
        ("Heartbeat", "", None),
    ]
    return st.builds(
        lambda name, kind, interval, timeout, body, project, more: {
            "name": name,
            "monitorType": kind[0],
            "url": kind[1],
            "expectedStatus": kind[2],
            "expectedBody": body,
            "interval": interval,
            "timeout": timeout,
            "project": project,
            **more,
        },
        NAMES,
        st.sampled_from(kinds),
        st.sampled_from((1, 60, longest)),
        st.sampled_from((None, 1, 60)),
        st.sampled_from(("", "ok 🚀", "{{ body }}")),
        st.integers(0, 4),
        more,
    )


def projects(line: str) -> st.SearchStrategy[Recipe]:
    """A project; `slug` renames it, and it may belong to no team in the end."""
    return st.fixed_dictionaries(
        {
            "name": NAMES,
            "platform": st.sampled_from(("", "node", "{{ platform }}", "Ünï 🚀")),
            "eventThrottleRate": st.sampled_from((0, 0, 50, 100, 250)),
            "slug": st.sampled_from((None, None, None, "shop", "www", "has space", "a/b")),
            "teams": st.lists(st.integers(0, 3), max_size=2, unique=True),
            "keys": st.lists(NAMES, max_size=2),
            "alerts": st.lists(alerts(line), max_size=3),
        }
    )


def organizations(line: str, longest: int = 32767) -> st.SearchStrategy[Recipe]:
    """An organization with everything in it; `longest` is the interval of monitors that the server takes."""
    return st.fixed_dictionaries(
        {
            "name": NAMES,
            "teams": st.lists(st.sampled_from(TEAMS), min_size=1, max_size=3, unique=True),
            "members": st.lists(
                st.tuples(
                    st.sampled_from(EMAILS),
                    st.sampled_from(("member", "admin", "manager", "owner")),
                    st.lists(st.integers(0, 2), max_size=2, unique=True),
                ),
                max_size=2,
                unique_by=lambda member: member[0],
            ),
            "leaves": st.booleans(),
            "projects": st.lists(projects(line), max_size=4),
            "monitors": st.lists(monitors(line, longest), max_size=3),
            "pages": st.lists(st.tuples(NAMES, st.booleans()), max_size=2),
            "gone": st.sampled_from((None, None, 0)),
        }
    )


def servers(line: str) -> st.SearchStrategy[list[Recipe]]:
    """One organization or two."""
    longest = 32767 if line == "5.2" else 86400
    return st.lists(organizations(line, longest), min_size=1, max_size=2)


def build(client: Client, recipe: list[Recipe]) -> list[str]:
    """Make it; the slugs of the organizations."""
    return [_organization(client, one) for one in recipe]


def _organization(client: Client, recipe: Recipe) -> str:
    org = str(client.organizations.create(recipe["name"])["slug"])
    teams = recipe["teams"]
    for team in teams:
        client.teams.create(org, team)
    for email, role, chosen in recipe["members"]:
        client.members.invite(org, email, role=role, teams=[teams[n % len(teams)] for n in chosen])
    made: list[dict[str, Any]] = []
    for project in recipe["projects"]:
        made.append(_project(client, org, project, teams, made))
    for monitor in recipe["monitors"]:
        project = made[monitor["project"] % len(made)]["id"] if made and monitor["project"] else None
        client.monitors.create(org, {**monitor, "project": project})
    for name, public in recipe["pages"]:
        client.status_pages.create(org, name, public=public)
    if recipe["leaves"]:
        own = client.members.get(org, "me") or {}
        client.members.remove_from_team(org, own["id"], teams[0])
    if recipe["gone"] is not None:
        client.teams.delete(org, teams[recipe["gone"]])
    return org


def _project(
    client: Client, org: str, recipe: Recipe, teams: list[str], made: list[dict[str, Any]]
) -> dict[str, Any]:
    wanted = [teams[n % len(teams)] for n in recipe["teams"]]
    first = wanted[0] if wanted else teams[0]
    project = client.projects.create(
        org,
        first,
        name=recipe["name"],
        platform=recipe["platform"],
        event_throttle_rate=recipe["eventThrottleRate"],
    )
    slug = str(project["slug"])
    for key in recipe["keys"]:
        client.keys.create(org, slug, name=key)
    for alert in recipe["alerts"]:
        client.post(path_of("projects", org, slug, "alerts"), alert)
    for team in wanted[1:]:
        client.projects.add_team(org, slug, team)
    if not wanted:
        client.projects.remove_team(org, slug, first)
    taken = {str(other["slug"]) for other in made}
    if recipe["slug"] and recipe["slug"] not in taken and not any("/" in one for one in taken):
        body = {"name": recipe["name"], "platform": recipe["platform"], "slug": recipe["slug"]}
        project = {**project, **client.projects.update(org, slug, body)}
    return project
