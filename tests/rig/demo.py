"""`make demo`, `make demo-repeat`, `make demo-rollback`: the walk, its repeat and its way back, with tables and artifacts."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ai_admin.ledger import Ledger, read_ledger

from glitchtip_api import Client
from rig import engine, images, sentry, subject, walk, world
from rig.shell import ROOT, RigError, say
from rig.trackers import Tracker, require, settle, tunnel

ARTIFACTS = ROOT / "artifacts"
GENERATED = world.INVENTORY / "group_vars/all/generated.yml"
STATE = world.DEMO / "state.json"
LEDGER = "/var/lib/ai-admin/ledger.jsonl"
JOURNAL = "/var/lib/ai-admin-cutover/demo/journal.jsonl"
APPLIED = "/var/lib/ai-admin-cutover/demo/applied.json"
GLITCHTIP_URL = "http://127.0.0.1:8080"
WITHOUT_SDK = "pm2-logrotate"


def prepare_surroundings(product: str = "product") -> None:
    """What stands around every server: engine, images, network, "Sentry", and a registry where no public one answers."""
    engine.ensure()
    images.build_all([product, "registry", "postgres", "valkey", *subject.standins()])
    world.ensure_network()
    sentry.launch()
    if given := subject.given():
        say(f"images: {given.image} serves as GlitchTip {given.version}")
        world.ensure_registry()
    elif images.registry_reachable():
        say(
            "images: a public registry answers, the real glitchtip/glitchtip, postgres and valkey images serve"
        )
    else:
        say(
            "images: no public registry answers, the stand-in serves in GlitchTip's place (same API, same container contract)"
        )
        world.ensure_registry()


def prepare_world() -> Tracker:
    """The surroundings and a fresh server whose product reports to "Sentry"; returns "Sentry"."""
    prepare_surroundings()
    say("server: booting Debian 13 with 1.9 GB and 1 CPU ...")
    container = world.start_server()
    tracker, dsn = sentry.provision()
    write_inventory(container, tracker)
    world.provision_product(dsn)
    say(f"server: nine PM2 processes online, reporting to {urlsplit(dsn).hostname}")
    return tracker


def write_inventory(container: str, tracker: Tracker) -> None:
    """The variables of the demo that only exist once its world does (git ignores the file)."""
    variables: dict[str, Any] = {
        "demo_cgroup_parent": f"/docker/{container}",
        "demo_key": str(world.KEY),
        "demo_sentry_token": tracker.token,
        "demo_sentry_organization": tracker.organization,
        "demo_sentry_project": tracker.project,
    }
    given = subject.given()
    if given or not images.registry_reachable():
        variables |= {
            "glitchtip_image": f"{world.REGISTRY_NAME}/{given.repository if given else subject.STANDIN}",
            "glitchtip_postgres_image": f"{world.REGISTRY_NAME}/standin/postgres:17",
            "glitchtip_valkey_image": f"{world.REGISTRY_NAME}/standin/valkey:8",
        }
    if given:
        variables["demo_glitchtip_version"] = given.version
    world.write_private(GENERATED, "---\n" + yaml.safe_dump(variables))


def ledger(server: world.Server = world.MAIN, path: str = LEDGER) -> Ledger:
    """The product's ledger, read off the server."""
    text = world.inside(["cat", path], server)
    copy = server.directory / f"ledger-{server.name}.jsonl"
    copy.write_text(text)
    return read_ledger(copy)


def glitchtip_tracker(url: str, server: world.Server = world.MAIN) -> Tracker:
    """GlitchTip on the server, as the operator tools there know it."""
    settings = json.loads(world.inside(["cat", "/etc/glitchtip-ops/settings.json"], server))
    token = world.inside(["cat", "/etc/glitchtip-ops/token"], server)
    password = world.inside(["cat", "/opt/glitchtip/.superuser-password"], server).strip()
    return Tracker(
        url=url,
        email="admin@example.org",
        password=password,
        token=token.strip(),
        organization=settings["organization"],
        project=settings["project"],
        project_id=str(settings["project_id"]),
    )


def sentry_tracker() -> Tracker:
    """ "Sentry" as the last `make demo` made it."""
    if not STATE.exists():
        raise RigError("There is no demo server; run `make demo` first.")
    return Tracker(**json.loads(STATE.read_text())["sentry"])


def service_rows(server: world.Server = world.MAIN) -> list[dict[str, Any]]:
    """One row a service: old and new DSN host, proof, event id, seconds; the module without SDK says so."""
    _, text = world.ssh(f"cat {APPLIED}", server=server)
    rows = [
        {key: service[key] for key in ("name", "old", "new", "proof", "event_id", "seconds")}
        for service in json.loads(text)["services"]
        if service["name"] != WITHOUT_SDK
    ]
    rows.append(
        {"name": WITHOUT_SDK, "old": None, "new": None, "proof": "no SDK", "event_id": None, "seconds": None}
    )
    return rows


def table(title: str, header: list[str], rows: list[list[object]]) -> None:
    """Print an aligned table."""
    cells = [header, *[["" if cell is None else str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    say(f"\n{title}")
    for row in cells:
        say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write_artifact(name: str, document: dict[str, Any], *, private: bool = False) -> Path:
    """Write ``artifacts/<name>`` as JSON."""
    path = ARTIFACTS / name
    text = json.dumps(document, indent=1) + "\n"
    if private:
        world.write_private(path, text)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return path


def software() -> tuple[str, str]:
    """(what serves as GlitchTip on the server, the version that the roles deployed)."""
    given = subject.given()
    served = "glitchtip/glitchtip" if images.registry_reachable() else "stand-in"
    return given.name if given else served, str(walk.evidence("phase2")["version"])


def deployed_image(deployed: dict[str, Any]) -> dict[str, str]:
    """The GlitchTip image of phase 2's evidence: ``{"reference", "digest"}``."""
    reference, _, digest = str(deployed["images"]["glitchtip"]).partition("@")
    return {"reference": reference, "digest": digest}


def demo() -> None:
    """The walk from nothing, phase 0 to phase 5."""
    began = time.monotonic()
    tracker = prepare_world()
    STATE.write_text(json.dumps({"sentry": asdict(tracker)}))
    STATE.chmod(0o600)
    say(f"world ready after {time.monotonic() - began:.0f} s")
    runs = [(walk.playbook(phase), walk.evidence(phase.split("_")[0])["proof"]) for phase in walk.PHASES]
    memory = world.memory_mib("glitchtip")
    with tunnel() as url:
        reported = str(Client(url).settings().get("version") or "")
        glitchtip = glitchtip_tracker(url)
        entries = ledger()
        events = settle(set(entries.captured), set(entries.acknowledged), tracker, glitchtip)
    services = service_rows()
    server, version = software()
    deployed = walk.evidence("phase2")
    phases = [
        {
            "name": run.name,
            "seconds": run.seconds,
            "tasks": run.tasks,
            "changed": len(run.changed),
            "proof": proof,
        }
        for run, proof in runs
    ]
    document = {
        "server": f"{server} {version}",
        "image": deployed_image(deployed),
        "version_reported": reported,
        "phases": phases,
        "services": services,
        "events": events,
        "stack_memory_mib": round(sum(memory.values()), 1),
        "memory_mib": memory,
    }
    write_artifact("demo.json", document)
    write_access(tracker, replace(glitchtip, url=GLITCHTIP_URL))
    table(
        "Phases",
        ["phase", "seconds", "tasks", "changed", "proof"],
        [list(phase.values()) for phase in phases],
    )
    table(
        "Services",
        ["service", "DSN host", "proof", "event id read back", "seconds"],
        [
            [
                row["name"],
                f"{row['old']} -> {row['new']}" if row["old"] else "-",
                row["proof"],
                row["event_id"],
                row["seconds"],
            ]
            for row in services
        ],
    )
    table("Events", list(events), [list(events.values())])
    say(
        f"\nStack: {document['stack_memory_mib']} MiB (PSS) on {server} {version}; whole demo {time.monotonic() - began:.0f} s;"
        " the server stays up (`make clean` removes it)."
    )
    require(events["lost"] == 0 and events["duplicated"] == 0, f"Events were lost or duplicated: {events}.")


def write_access(sentry_side: Tracker, glitchtip: Tracker) -> None:
    """Where everything is, for an outside checker; private, it holds tokens."""
    reach = " ".join(world.ssh_argv())
    write_artifact(
        "demo-access.json",
        {
            "containers": {
                "server": world.SERVER,
                "registry": world.REGISTRY,
                "sentry": sentry.containers(),
                "network": world.NETWORK,
            },
            "ssh": {
                "host": "127.0.0.1",
                "port": world.SSH_PORT,
                "user": "root",
                "key": str(world.KEY),
                "command": reach,
            },
            "inventory": str(world.INVENTORY),
            "sentry": {**asdict(sentry_side), "url_on_server": sentry.URL_ON_SERVER},
            "glitchtip": {
                **asdict(glitchtip),
                "url_on_server": glitchtip.url,
                "tunnel": " ".join(
                    [*world.ssh_argv()[:-1], "-N", "-L", "28080:127.0.0.1:8080", world.ssh_argv()[-1]]
                ),
                "compose": "/opt/glitchtip/docker-compose.yml",
            },
            "ledger": LEDGER,
            "journal": JOURNAL,
            "evidence": walk.EVIDENCE,
            "environment_file": "/opt/ai-admin/.env",
        },
        private=True,
    )


def fingerprint() -> dict[str, str]:
    """What a repeat must leave as it was: process ids and restart counts, container ids, .env, snapshots, backups, evidence."""
    script = """
import glob, hashlib, json, os, subprocess
def tree(pattern):
    found = {}
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isfile(path):
            found[path] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    return found
listed = json.loads(subprocess.run(["pm2", "jlist"], capture_output=True, text=True, env={**os.environ, "PM2_HOME": "/root/.pm2"}).stdout)
print(json.dumps({
    "processes": {p["name"]: [p["pid"], p["pm2_env"]["restart_time"]] for p in listed if not p["pm2_env"].get("cron_restart")},
    "containers": sorted(subprocess.run(["sh", "-c", "docker ps -aq --no-trunc"], capture_output=True, text=True).stdout.split()),
    "packages": tree("/var/lib/dpkg/status"),
    ".env": tree("/opt/ai-admin/.env*"),
    "stack": tree("/opt/glitchtip/*") | tree("/opt/glitchtip/.*"),
    "snapshots": tree("/var/lib/ai-admin-cutover/demo/before/**"),
    "evidence": tree("/var/lib/glitchtip-migration/**"),
    "backups": tree("/var/backups/glitchtip/**"),
    "settings": tree("/etc/glitchtip-ops/**") | tree("/etc/ai-admin-cutover/**"),
}))
"""
    _, text = world.ssh("python3 -", input_text=script)
    return {key: json.dumps(value, sort_keys=True) for key, value in json.loads(text).items()}


def changed_parts(before: dict[str, str], after: dict[str, str]) -> str:
    """Names of the parts that differ, with what differs in them."""
    parts = []
    for key in before:
        if before[key] != after[key]:
            old, new = json.loads(before[key]), json.loads(after[key])
            if isinstance(old, dict):
                differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
                parts.append(f"{key} ({', '.join(differing)})")
            else:
                parts.append(key)
    return "; ".join(parts)


@dataclass(frozen=True)
class Access:
    """What the management API was asked for: how often to read, and each request that was no read."""

    reads: int
    writes: tuple[str, ...]


#: The stand-in's line (``glitchtip.access GET /api/0/ => 200``), or uWSGI's (``GET /api/0/ => generated 2 bytes in 3 msecs (HTTP/1.1 200)``).
_ACCESS = re.compile(
    r"(?:glitchtip\.access|\]) ([A-Z]+) (/\S*) => (?:generated \d+ bytes in \d+ msecs \(HTTP/[0-9.]+ )?(\d+)"
)
_MANAGEMENT = ("/api/0/", "/_allauth/")
_READS = ("GET", "HEAD", "OPTIONS")


def access_of(log: str) -> Access:
    """The management requests in a log of the web container, of the stand-in or of uWSGI (5.2).

    Events that services send all the time, and health checks, are none.
    """
    found = [match.groups() for match in _ACCESS.finditer(log) if match[2].startswith(_MANAGEMENT)]
    writes = tuple(f"{method} {path} => {status}" for method, path, status in found if method not in _READS)
    return Access(len(found) - len(writes), writes)


_WEB_LOG = """docker logs {options} "$(docker ps -q --filter label=com.docker.compose.project=glitchtip \\
  --filter label=com.docker.compose.service=web)" 2>&1 | grep -E ' (GET|HEAD|OPTIONS|POST|PUT|PATCH|DELETE) /\\S* => ' || true"""


def keeps_access_log() -> bool:
    """Whether the web container is one that logs its requests: the stand-in, or a given image of the 5.2 line (uWSGI)."""
    given = subject.given()
    return given.line == "5.2" if given else not images.registry_reachable()


def web_log(options: str = "") -> str:
    """The lines of GlitchTip's web container on the server that tell of requests; `options` of ``docker logs``."""
    return world.ssh(_WEB_LOG.format(options=options))[1]


def repeat() -> None:
    """All phases again: nothing may change; then `--check --diff` of every phase: nothing written, no secret shown.

    That check mode writes nothing is seen on the server's side, too: in the log of its requests.
    """
    known_secrets = secrets_of_demo(sentry_tracker())
    before = fingerprint()
    runs = [walk.playbook(phase) for phase in walk.PHASES]
    after = fingerprint()
    table(
        "Repeat",
        ["phase", "seconds", "tasks", "changed"],
        [[run.name, run.seconds, run.tasks, len(run.changed)] for run in runs],
    )
    for run in runs:
        require(not run.changed, f"The repeat of {run.name} changed something: {', '.join(run.changed)}.")
    require(before == after, f"The repeat left the server different: {changed_parts(before, after)}.")
    logged = bool(web_log("--tail 500"))
    require(logged or not keeps_access_log(), "GlitchTip's web container logs no requests.")
    _, began = world.ssh("date -u +%Y-%m-%dT%H:%M:%S.%NZ")
    checks = [walk.playbook(phase, check=True, quiet=True) for phase in walk.PHASES]
    access = access_of(web_log(f"--since {began}"))
    table(
        "--check --diff",
        ["phase", "seconds", "tasks", "would change"],
        [[r.name, r.seconds, r.tasks, len(r.changed)] for r in checks],
    )
    require(before == fingerprint(), f"Check mode wrote something: {changed_parts(before, fingerprint())}.")
    if logged:
        say(
            f"\nIn check mode the server was asked {access.reads} times to read and {len(access.writes)} times to write."
        )
        require(access.reads > 0, "The log of the server's requests does not show the run in check mode.")
        require(not access.writes, f"Check mode wrote to the server: {'; '.join(access.writes[:5])}.")
    else:
        say("\nThis server keeps no log of its requests, so what check mode asked of it was not counted.")
    for run in [*runs, *checks]:
        shown = [name for name, value in known_secrets.items() if value in run.output]
        require(not shown, f"The output of {run.name} shows a secret: {', '.join(shown)}.")
    say(
        "\nNothing changed: processes, containers, .env, snapshots, backups and evidence are the same; no secret in any output."
    )


def check() -> None:
    """`site.yml --check --diff` on a server on which no phase has run yet: it ends well and changes nothing there."""
    before = fingerprint()
    walk.playbook("site", check=True, quiet=True, fast=True)
    after = fingerprint()
    require(before == after, f"Check mode changed the bare server: {changed_parts(before, after)}.")


def later_phases() -> None:
    """Phases 2 to 5 with Mitogen, on a server on which phases 0 and 1 have run (as an operator runs them, with the same modules)."""
    for phase in walk.PHASES[2:]:
        walk.playbook(phase, fast=True)


def secrets_of_demo(tracker: Tracker) -> dict[str, str]:
    """Every secret of the demo by name, to look for in outputs."""
    _, stack = world.ssh("cat /opt/glitchtip/.env")
    found = {
        f".env of the stack, {line.split('=')[0]}": line.split("=", 1)[1]
        for line in stack.splitlines()
        if "=" in line
    }
    _, token = world.ssh("cat /etc/glitchtip-ops/token")
    _, dsn = world.ssh("cat /etc/glitchtip-ops/dsn")
    _, provisioning = world.ssh("cat /opt/glitchtip/.provisioning-token")
    _, product = world.ssh("sed -n s/^SENTRY_DSN=//p /opt/ai-admin/.env")
    found |= {
        "token of the operator tools": token.strip(),
        "provisioning token": provisioning.strip(),
        "token of Sentry": tracker.token,
    }
    found |= {
        "key of the new DSN": urlsplit(dsn.strip()).username or dsn,
        "key of .env": urlsplit(product.strip("\"' ")).username or product,
    }
    require(
        all(len(value) >= 16 for value in found.values()), "A secret of the demo is too short to look for."
    )
    return found


def rollback() -> None:
    """`playbooks/rollback.yml`: every service reports to the DSN of before the migration again, proven in "Sentry"."""
    tracker = sentry_tracker()
    began = time.monotonic()
    run = walk.playbook("rollback")
    _, text = world.ssh("cat /var/lib/glitchtip-migration/demo/rollback.json")
    result = json.loads(text)
    result = result.get("data", result)
    missing = [
        s["name"] for s in result["services"] if s.get("event_id") and not tracker.has(str(s["event_id"]))
    ]
    document = {
        "seconds_to_last_restart": result["seconds_to_last_restart"],
        "seconds_proof": result["seconds_proof"],
        "services": result["services"],
    }
    write_artifact("rollback.json", document)
    table(
        "Rollback",
        ["service", "reports to", "proof", "event id read back", "seconds"],
        [
            [s["name"], s.get("dsn_host"), s.get("proof"), s.get("event_id"), s.get("seconds")]
            for s in result["services"]
        ],
    )
    say(
        f"\nLast restart after {result['seconds_to_last_restart']} s, proof {result['seconds_proof']} s more; "
        f"playbook {run.seconds} s, {run.tasks} tasks, whole {time.monotonic() - began:.0f} s."
    )
    require(not missing, f"Sentry does not have the events of {', '.join(missing)}.")
    hosts = {s["dsn_host"] for s in result["services"] if s["name"] != WITHOUT_SDK}
    require(
        hosts == {urlsplit(sentry.URL_ON_SERVER).netloc},
        f"Not every service reports to Sentry again: {sorted(map(str, hosts))}.",
    )
