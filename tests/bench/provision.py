"""`make bench`: 100 projects with a key and an alert rule each, provisioned in five ways.

A stand-in of this machine answers every request 20 ms late, so that figures compare the ways and not the
server: (a) a loop over the single modules, (b) ``glitchtip_configuration`` on a server that has nothing,
(c) the same again with nothing to change, (d) the same with ``--check``, (e) the requests of (c) by bare
``requests``, as many at once. Requests are counted in the server's log, processes by the modules that ran.

Of (b) to (d) `seconds` is what the module does, in one process with the client, and `playbook_seconds` the
whole of ansible-playbook around it; (a) has no other measure than the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml
from desired_state import filled
from local import Local, Unavailable, running

from glitchtip_api import Client
from glitchtip_api.configuration import reconcile
from glitchtip_api.session import login
from glitchtip_api.validate import SCOPES

ROOT = Path(__file__).resolve().parents[2]
ARTIFACT = ROOT / "artifacts/bench-provision.json"
Figures = dict[str, Any]


def structure(organization: str, projects: int) -> list[dict[str, Any]]:
    """The desired state: one team, and projects with a key and an alert rule each."""
    rule = {
        "name": "chat",
        "quantity": 1,
        "timespan_minutes": 5,
        "recipients": [{"type": "webhook", "url": "https://hooks.example.org/errors"}],
    }
    names = [f"Service {number:03d}" for number in range(projects)]
    entries = [
        {"name": name, "platform": "node", "teams": ["crew"], "keys": ["production"], "alerts": [rule]}
        for name in names
    ]
    return [{"name": organization, "teams": ["crew"], "projects": entries}]


def loop_play(organization: str, projects: int) -> list[dict[str, Any]]:
    """(a): one task a kind, looping over the projects."""
    slug = "{{ made.organization.slug }}"
    names = [f"Service {number:03d}" for number in range(projects)]
    rule = structure(organization, 1)[0]["projects"][0]["alerts"][0]
    return [
        {"glitchtip_organization": {"name": organization}, "register": "made"},
        {"glitchtip_team": {"organization": slug, "slug": "crew"}},
        {
            "glitchtip_project": {
                "organization": slug,
                "team": "crew",
                "name": "{{ item }}",
                "platform": "node",
            },
            "loop": names,
        },
        {
            "glitchtip_project_key": {
                "organization": slug,
                "project": "{{ item | lower | replace(' ', '-') }}",
                "name": "production",
            },
            "loop": names,
        },
        {
            "glitchtip_alert": {
                "organization": slug,
                "project": "{{ item | lower | replace(' ', '-') }}",
                **rule,
            },
            "loop": names,
        },
    ]


class Bench:
    """One stand-in, measured."""

    def __init__(self, server: Local, token: str, concurrency: int) -> None:
        self.server = server
        self.token = token
        self.concurrency = concurrency

    def requests_so_far(self) -> int:
        """Lines of the server's access log."""
        return self.server.log.read_text().count(" glitchtip.access ")

    @contextmanager
    def measured(self, into: Figures, key: str = "seconds") -> Iterator[None]:
        """Seconds and requests of the block."""
        before, began = self.requests_so_far(), time.perf_counter()
        yield
        into[key] = round(time.perf_counter() - began, 3)
        time.sleep(0.2)  # the last line of the log
        into["requests"] = self.requests_so_far() - before

    def playbook(self, tasks: list[dict[str, Any]], *options: str) -> None:
        """Run tasks with ansible-playbook on this machine."""
        modules = {name for task in tasks for name in task if name.startswith("glitchtip_")}
        access = {"url": self.server.url, "token": "{{ lookup('env', 'BENCH_TOKEN') }}"}
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": sys.executable},
            "module_defaults": dict.fromkeys(modules, access),
            "tasks": tasks,
        }
        with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=ROOT / "artifacts") as file:
            yaml.safe_dump([play], file)
            file.flush()
            done = subprocess.run(
                [
                    str(Path(sys.executable).parent / "ansible-playbook"),
                    "-i",
                    "localhost,",
                    file.name,
                    *options,
                ],
                cwd=ROOT,
                env={**os.environ, "BENCH_TOKEN": self.token, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise SystemExit(f"bench: the playbook failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")

    def client(self, *, read_only: bool = False) -> Client:
        """The client as the module makes it."""
        return Client(
            self.server.url, self.token, per_second=None, concurrent=self.concurrency, read_only=read_only
        )

    def way(self, act: Callable[[], None], tasks: list[dict[str, Any]], *options: str) -> Figures:
        """Both measures of one way; the playbook's run is counted in `requests`."""
        figures: Figures = {}
        with self.measured(figures):
            act()
        with self.measured(figures, "playbook_seconds"):
            self.playbook(tasks, *options)
        figures["processes"] = 1
        return figures

    def bare(self, organization: str, projects: int) -> Figures:
        """(e): the reads of a run without changes, by requests alone."""
        paths = ["/api/0/organizations/", f"/api/0/organizations/{organization}/teams/"]
        listing = f"/api/0/organizations/{organization}/projects/"
        slugs = [f"service-{number:03d}" for number in range(projects)]
        session = requests.Session()
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=self.concurrency)
        session.mount("http://", adapter)
        session.headers["Authorization"] = f"Bearer {self.token}"

        def get(path: str) -> None:
            answer = session.get(self.server.url + path, params={"limit": 100}, timeout=30)
            answer.raise_for_status()
            answer.json()

        figures: Figures = {}
        with self.measured(figures), ThreadPoolExecutor(self.concurrency) as pool:
            for path in [*paths, listing]:
                get(path)
            rest = [
                f"/api/0/projects/{organization}/{slug}/{kind}/"
                for slug in slugs
                for kind in ("keys", "alerts")
            ]
            list(pool.map(get, rest))
        figures["processes"] = 1
        return figures

    def overhead(self, times: int = 150) -> Figures:
        """Seconds of a read one after the other: by the client, and by a bare session."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token}"
        client = self.client()

        def seconds(act: Callable[[], object]) -> float:
            act()
            began = time.perf_counter()
            for _ in range(times):
                act()
            return (time.perf_counter() - began) / times

        url = f"{self.server.url}/api/0/"
        rounds = [
            (seconds(client.root), seconds(lambda: session.get(url, timeout=30).json())) for _ in range(3)
        ]
        ours, bare = min(pair[0] for pair in rounds), min(pair[1] for pair in rounds)
        return {
            "client_ms": round(ours * 1000, 2),
            "bare_ms": round(bare * 1000, 2),
            "percent": round((ours / bare - 1) * 100, 1),
        }


def measure(bench: Bench, projects: int, delay_ms: int) -> Figures:
    """All five ways."""
    by_module = structure("By module", projects)
    by_client = filled(structure("By client", projects))
    task = {"glitchtip_configuration": {"organizations": by_module, "concurrency": bench.concurrency}}

    def run(*, dry_run: bool = False) -> None:
        with bench.client(read_only=dry_run) as client:
            done = reconcile(client, by_client, concurrency=bench.concurrency, dry_run=dry_run)
        if done.applied and (done.applied.failed or done.remaining):
            raise SystemExit(f"bench: {done.applied.failed or done.remaining}")

    def say(text: str) -> None:
        print(f"bench: {text} ...", flush=True)

    say(f"(a) a loop over single modules, {projects} projects")
    loop: Figures = {}
    with bench.measured(loop):
        bench.playbook(loop_play("By loop", projects))
    loop["processes"] = 2 + 3 * projects
    say("(b) glitchtip_configuration, first run")
    apply = bench.way(run, [task])
    say("(c) the same again")
    no_change = bench.way(run, [task])
    say("(d) the same with --check")
    check = bench.way(lambda: run(dry_run=True), [task], "--check")
    say("(e) bare requests")
    bare = bench.bare("by-client", projects)
    return {
        "delay_ms": delay_ms,
        "projects": projects,
        "concurrency": bench.concurrency,
        "loop": loop,
        "apply": apply,
        "no_change": no_change,
        "check": check,
        "bare": bare,
        "overhead": bench.overhead(),
    }


def table(figures: Figures) -> str:
    """The figures for people."""
    names = {
        "loop": "(a) loop over single modules",
        "apply": "(b) glitchtip_configuration, first run",
        "no_change": "(c) again, nothing to change",
        "check": "(d) again with --check",
        "bare": "(e) bare requests, the reads of (c)",
    }
    lines = [f"{'':<40}{'requests':>9}{'seconds':>9}{'playbook':>10}{'processes':>11}"]
    for key, name in names.items():
        row = figures[key]
        whole = row.get("playbook_seconds", row["seconds"] if key == "loop" else "")
        own = "" if key == "loop" else row["seconds"]
        lines.append(f"{name:<40}{row['requests']:>9}{own:>9}{whole:>10}{row['processes']:>11}")
    faster = figures["loop"]["seconds"] / figures["apply"]["playbook_seconds"]
    ratio = figures["no_change"]["seconds"] / figures["bare"]["seconds"]
    over = figures["overhead"]
    lines += [
        f"(b) takes 1/{faster:.0f} of (a), playbook against playbook",
        f"(c) takes {ratio:.2f} times (e), {figures['concurrency']} requests at once",
        f"a request takes {over['client_ms']} ms by the client, {over['bare_ms']} ms bare: {over['percent']:+} %",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write the artifact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--projects", type=int, default=100)
    parser.add_argument("--delay-ms", type=int, default=20)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--line", default="6.2", choices=("5.2", "6.2"))
    options = parser.parse_args()
    ARTIFACT.parent.mkdir(exist_ok=True)
    environment = {"STANDIN_DELAY_MS": str(options.delay_ms)}
    try:
        with running(options.line, environment=environment) as server:
            with login(server.url, server.email, server.password) as session:
                token = session.ensure_token("bench", set(SCOPES)).token
            figures = measure(Bench(server, token, options.concurrency), options.projects, options.delay_ms)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    ARTIFACT.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))
    print(f"written to {ARTIFACT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
