"""Each port, directory, user, program and address has one variable, and everything else takes it from there.

Every such variable of a role is found by itself, given another value, and whatever still has the old one is an error: in the
resolved variables of all roles, in their tasks and templates, in the playbooks and in the programs.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.template import trust_as_template
from rendered_variables import EXAMPLE, ROOT, read_variables, render, roles_variables, templates

ENDINGS = (
    "_dir",
    "_root",
    "_file",
    "_path",
    "_port",
    "_user",
    "_group",
    "_binary",
    "_command",
    "_link",
    "_program",
    "_break_glass",
    "_listen",
    "_url",
    "_project_name",
    "_compose_project",
)
#: Given in the inventory, not a role's: their value where no inventory gives them.
OF_THE_INVENTORY = {
    "product_app_dir": "/opt/ai-admin",
    "product_pm2_user": "root",
    "product_pm2_home": "/root/.pm2",
    "product_pm2_binary": "/usr/local/bin/pm2",
    "product_node_binary": "/usr/bin/node",
    "product_env_key": "SENTRY_DSN",
    "migration_state_dir": "/var/lib/glitchtip-migration/sentry-to-glitchtip",
}
#: `NAME | default(LITERAL)`: what a role takes where the role that owns NAME is not part of the play.
FALLBACK = re.compile(r"\b([a-z][a-z0-9_]+) \| default\(('[^']*'|[0-9]+)(?:, true)?\)")
#: (file, old value) -> how often it may be there.
ALLOWED = {
    # The port inside the container of 5.2, which its image sets: the variable, and the value that the container gets.
    ("roles/glitchtip/vars/main.yml", "8080"): 1,
    ("roles/glitchtip/templates/docker-compose.yml.j2", "8080"): 1,
    # Node.js of the system, where neither the product nor PM2 gives one.
    ("roles/ai-admin-cutover/vars/main.yml", "/usr/bin/node"): 1,
    ("roles/preflight/tasks/probe.yml", "/usr/bin/node"): 1,
    ("roles/preflight/vars/main.yml", "/usr/bin/node"): 1,
    # The port that ssh leaves out of a known host's name.
    ("roles/tunnel/vars/main.yml", "22"): 1,
}
#: Variables whose value is another thing with the same name.
ALLOWED_VARIABLES = {
    "__glitchtip_container_port": "the port inside the container of 5.2, which its image sets",
    "__preflight_later_roles": "names of roles",
    "ai_admin_cutover_target": "one of the targets glitchtip and mirror",
    "glitchtip_token_label": "what GlitchTip shows beside the token of the operator tools",
}
#: Programs that have such a value as a default -> what says it to them.
PROGRAM_DEFAULTS = {
    "src/glitchtip_ops/settings.py": "the command of role ops says the directory (GLITCHTIP_OPS_CONFIG_DIR)",
    "src/glitchtip_ops/sentry_checklist.py": "settings.json says them; these are for one of an earlier version",
    "src/glitchtip_ops/soak/config.py": "soak.json says them",
    "src/glitchtip_ops/monitor.py": "monitor.json says them",
    "src/glitchtip_ops/backup/config.py": "backup.json says them",
    "src/glitchtip_ops/local_test/command.py": "role local_test says --pm2",
    "src/glitchtip_ops/drift.py": "monitor.json says the program; this is for one without monitoring",
    "src/glitchtip_cutover/config.py": "config.json says them",
    "src/glitchtip_cutover/config_file.py": "config.json says them",
    "src/glitchtip_cutover/mirror_routes.py": "config.json says the address",
    "src/glitchtip_cutover/cli.py": "role ai-admin-cutover builds its own into the program (bundle.py)",
}


def subjects_of(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Every variable with a port, directory, user, program or address of its own -> its value."""
    own = {
        name: value
        for name, value in variables.items()
        if name.endswith(ENDINGS) and not name.startswith("__") and value and not templates(value)
    }
    return own | OF_THE_INVENTORY


@cache
def subjects() -> dict[str, Any]:
    """Those of the roles as they are."""
    return subjects_of(roles_variables())


def changed(name: str, value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, int):
        return 20000 + sorted(subjects()).index(name)
    if str(value).startswith("http"):
        return f"http://127.0.0.1:{30000 + sorted(subjects()).index(name)}"
    return f"/changed/{name}" if str(value).startswith("/") else f"changed-{name.replace('_', '-')}"


def holds(text: str, value: Any) -> bool:
    """Whether ``text`` has the old value: a path with what is below it, a port, an address, or a word as the whole text."""
    old = str(value)
    if isinstance(value, int) or old.startswith(("/", "http")):
        return re.search(rf"(?<![\w./])(?<!\w-){re.escape(old)}(?!\w|[.-]\w)", text) is not None
    return text == old


def leaves(value: Any) -> Iterator[str]:
    """Every text and number in a value, as text."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            # the name of a role to include is no name of a project
            yield from () if key in ("name", "role") and each == "glitchtip" else leaves(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def twins(variables: Mapping[str, Any]) -> dict[str, set[str]]:
    """Variables with a value of their own that has the value of another one in it -> those others."""
    own = subjects_of(variables)
    return {
        name: others
        for name, value in own.items()
        if name not in OF_THE_INVENTORY
        and (others := {other for other, old in own.items() if other != name and holds(str(value), old)})
    }


def readers_of_old_values(variables: Mapping[str, Any], names: Iterable[str] | None = None) -> dict[str, set[str]]:
    """Give every subject another value and resolve ``names`` (all): variable -> subjects whose old value it still has."""
    new = {name: changed(name, value) for name, value in subjects().items()}
    found: dict[str, set[str]] = {}
    for name, value in render({**variables, **new, "migration_id": "changed-migration"}, names).items():
        if name in new or name in ALLOWED_VARIABLES:
            continue
        old = {
            subject
            for subject, before in subjects().items()
            if any(holds(leaf, before) for leaf in leaves(value))
        }
        if old:
            found[name] = old
    return found


def without_fallbacks(text: str) -> str:
    """A text without the fallbacks of variables that belong to another role."""
    return FALLBACK.sub(lambda match: match[1], text)


def test_the_subjects_are_found() -> None:
    expected = {
        "glitchtip_port",
        "glitchtip_dir",
        "glitchtip_project_name",
        "glitchtip_public_url",
        "ops_dir",
        "ops_config_dir",
        "ops_user",
        "ops_command",
        "ops_state_dir",
        "ops_backup_dir",
        "ai_admin_cutover_state_root",
        "ai_admin_cutover_config_dir",
        "ai_admin_cutover_program",
        "ai_admin_cutover_mirror_listen",
        "tunnel_user",
        "tunnel_dir",
        "local_test_port",
        "local_test_stack_dir",
        "local_test_compose_project",
        "preflight_target_file",
    }
    assert expected <= set(subjects())
    assert len(resolved()) > 250
    assert len(DERIVED) > 40


def test_no_variable_keeps_the_old_value_of_another_one() -> None:
    assert readers_of_old_values(roles_variables()) == {}


def test_no_two_variables_have_one_value_of_their_own() -> None:
    assert twins(roles_variables()) == {}


@cache
def resolved() -> dict[str, Any]:
    """Everything as it is without an inventory."""
    return render({**roles_variables(), "migration_id": "sentry-to-glitchtip"})


#: Those whose value is that of another variable, or has it in it.
DERIVED = sorted(
    name
    for name, value in roles_variables().items()
    if templates(value)
    and not name.startswith("__")
    and any(holds(leaf, old) for leaf in leaves(resolved().get(name)) for old in subjects().values())
)


@pytest.mark.parametrize("name", DERIVED)
def test_one_reader_of_an_old_value_that_is_put_back_is_found(name: str) -> None:
    """The tests above find every member of the kind: each variable that derives from another one, given its old value as a constant."""
    mutated = {**roles_variables(), "migration_id": "sentry-to-glitchtip", name: resolved()[name]}
    assert name in readers_of_old_values(mutated, [name]) or name in twins(mutated)


def test_fallbacks_are_the_defaults_of_the_variables_that_they_stand_for() -> None:
    files = [*ROOT.glob("roles/*/*/*.yml"), *ROOT.glob("roles/*/templates/*.j2"), *ROOT.glob("playbooks/**/*.yml")]
    assert len(files) > 80
    known = subjects() | {name: value for name, value in roles_variables().items() if not templates(value)}
    wrong = [
        (str(path.relative_to(ROOT)), name, literal)
        for path in files
        for name, literal in FALLBACK.findall(path.read_text(encoding="utf-8"))
        if name in known and literal != "''" and str(known[name]) != literal.strip("'")
    ]
    assert wrong == []


def texts_of(path: Path, written: str) -> Iterator[str]:
    """The values of a YAML file, or the lines of a template, without comments and fallbacks."""
    text = without_fallbacks(written)
    if path.suffix == ".yml":
        yield from leaves(yaml.safe_load(text))
    else:
        yield from (line.split("# ")[0] if line.startswith("#") else line for line in text.splitlines())


def old_values_in(path: Path, written: str) -> set[tuple[str, str]]:
    """(file, old value) of everything that the file, with that text, says itself instead of by the variable."""
    place = str(path.relative_to(ROOT))
    # 'root' owns files everywhere, /usr/bin/node and the like are the system's own names of programs
    values = {str(value) for name, value in subjects().items() if value != "root"}
    own = {value: value if not value.isdigit() else int(value) for value in values}
    counts = Counter(value for text in texts_of(path, written) for value, typed in own.items() if holds(text, typed))
    return {(place, value) for value, count in counts.items() if count > ALLOWED.get((place, value), 0)}


READERS = [
    *ROOT.glob("roles/*/tasks/*.yml"),
    *ROOT.glob("roles/*/vars/*.yml"),
    *ROOT.glob("roles/*/handlers/*.yml"),
    *ROOT.glob("roles/*/templates/*.j2"),
    *ROOT.glob("playbooks/**/*.yml"),
]


def test_no_task_template_or_playbook_says_such_a_value_itself() -> None:
    assert len(READERS) > 80
    found = {each for path in READERS for each in old_values_in(path, path.read_text(encoding="utf-8"))}
    assert found == set()


def test_a_value_that_is_put_back_into_a_task_template_or_playbook_is_found() -> None:
    """Every place that reads a path, a port or an address by its variable, in turn, says the old value itself."""
    looked, missed = 0, []
    for path in READERS:
        written = path.read_text(encoding="utf-8")
        for name, old in subjects().items():
            if not str(old).startswith(("/", "http")) and not isinstance(old, int):
                continue
            for reader in (f"{{{{ {name} }}}}", f"{{{{ {name} | default('{old}') }}}}"):
                if reader in re.sub(r"(?m)^ *#.*$", "", written) and f"{name}: " not in written:
                    looked += 1
                    if not old_values_in(path, written.replace(reader, str(old))):
                        missed.append((str(path.relative_to(ROOT)), reader))
    assert missed == []
    assert looked > 40


def test_a_program_says_such_a_value_only_as_a_default_that_a_role_overrides() -> None:
    paths = {str(value) for value in subjects().values() if str(value).startswith(("/", "http")) and value != "/usr/bin/node"}
    found: dict[str, set[str]] = {}
    for path in sorted([*ROOT.glob("src/glitchtip_ops/**/*.py"), *ROOT.glob("src/glitchtip_cutover/*.py")]):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                found.setdefault(str(path.relative_to(ROOT)), set()).update(
                    value for value in paths if node.value == value or node.value.startswith(f"{value}/")
                )
    assert {place for place, values in found.items() if values} <= set(PROGRAM_DEFAULTS)


def test_sentry_is_given_once() -> None:
    variables = {**roles_variables(), **read_variables(EXAMPLE), "sentry_url": "https://sentry.changed.example.org"}
    rendered = render({**variables, "sentry_organization": "o", "sentry_project": "p", "sentry_token": "t"})
    for name, url in (("ops_sentry", "url"), ("ai_admin_cutover_old", "api_url")):
        found = [rendered[f"{name}_{part}"] for part in (url, "organization", "project", "token")]
        assert found == ["https://sentry.changed.example.org", "o", "p", "t"], name


@pytest.mark.parametrize("name", ["ops_sentry_url", "ai_admin_cutover_old_api_url"])
def test_the_old_names_of_sentry_still_win(name: str) -> None:
    variables = {**roles_variables(), **read_variables(EXAMPLE), name: "https://other.example.org"}
    assert render(variables)[name] == "https://other.example.org"


def test_the_command_of_the_tools_says_where_their_settings_are() -> None:
    template = (ROOT / "roles/ops/templates/glitchtip-ops.sh.j2").read_text(encoding="utf-8")
    command = {"command": trust_as_template(template), "ansible_managed": "x", "ops_dir": "/srv/tools"}
    written = render({**roles_variables(), **command, "ops_config_dir": "/srv/settings"}, ["command"])["command"]
    assert 'export GLITCHTIP_OPS_CONFIG_DIR="${GLITCHTIP_OPS_CONFIG_DIR:-/srv/settings}"' in written
    assert "/srv/tools/venv/bin/python" in written


#: `NAME | default(FALLBACK)`, brackets one level deep.
READ = re.compile(r"\b([a-z][a-z0-9_]+) \| default\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
WORD = re.compile(r"\b[a-z][a-z0-9]*_[a-z0-9_]+\b")


def short_fallbacks(text: str, defaults: Mapping[str, Any]) -> list[str]:
    """`NAME | default(...)` whose fallback leaves out a variable that the default of NAME is made of."""
    found = []
    for name, fallback in READ.findall(text):
        value = defaults.get(name)
        needed = set(WORD.findall(value)) if isinstance(value, str) and "{{" in value else set()
        if missing := needed - set(WORD.findall(fallback)):
            found.append(f"{name} falls back to {fallback} and not to {', '.join(sorted(missing))}")
    return found


@pytest.mark.parametrize("role", sorted(path.name for path in (ROOT / "roles").iterdir()))
def test_a_role_that_reads_a_variable_of_another_falls_back_as_that_one_does(role):
    defaults = {}
    for path in (ROOT / "roles").glob("*/defaults/main.yml"):
        if path.parts[-3] != role:
            defaults.update(yaml.safe_load(path.read_text()) or {})
    files = [path for path in (ROOT / "roles" / role).rglob("*") if path.suffix in {".yml", ".j2"}]
    assert files
    assert {str(path): wrong for path in files if (wrong := short_fallbacks(path.read_text(), defaults))} == {}


def test_a_fallback_that_forgets_the_shared_variable_is_noticed():
    defaults = {"ops_sentry_token": "{{ sentry_token | default('') }}"}
    assert short_fallbacks("{{ ops_sentry_token | default('') }}", defaults) == [
        "ops_sentry_token falls back to '' and not to sentry_token"
    ]
    assert short_fallbacks("{{ ops_sentry_token | default(sentry_token | default('')) }}", defaults) == []
