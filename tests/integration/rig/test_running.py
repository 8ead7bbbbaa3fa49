"""Running SDK clients, asked from outside by the script of `make operator`: real processes, the real SDK (node)."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rig import running

DSN = "http://aaaaaaaaaaaaaaaa@127.0.0.1:8090/1"
OTHER = "http://bbbbbbbbbbbbbbbb@127.0.0.1:9000/1"
EXPECTED = running.Client.of_dsn(DSN)

#: Prints the list that the test wrote, like `pm2 jlist` behind one of PM2's notices.
PM2 = "process.stdout.write('[PM2] a notice\\n' + require('fs').readFileSync(__dirname + '/list.json', 'utf8'));"
SERVICE = """
const Sentry = require('@sentry/node');
Sentry.init({{ dsn: {dsn}, enabled: {enabled} }});
setInterval(() => {{}}, 60_000);
"""
WITHOUT_SDK = "setInterval(() => {}, 60_000);"
#: What `npm start` is to PM2: a node that starts a shell that starts the service.
STARTER = """
require('node:child_process').spawn('sh', ['-c', process.execPath + ' {script}; true'], {{ stdio: 'ignore' }});
setInterval(() => {{}}, 60_000);
"""


class Product:
    """Processes beside the SDK's packages, listed as PM2 would."""

    def __init__(self, directory: Path, app: Path) -> None:
        self.directory = directory
        self.app = app
        self.listed: list[dict[str, Any]] = []
        self.started: list[subprocess.Popen[bytes]] = []
        (directory / "pm2.js").write_text(PM2)

    def write(self, name: str, text: str) -> Path:
        path = self.app / f"{self.directory.name}-{name}-{len(self.listed)}.js"
        path.write_text(text)
        return path

    def start(self, name: str, text: str) -> None:
        argv = ["node", str(self.write(name, text))]
        process = subprocess.Popen(
            argv, cwd=self.app, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.started.append(process)
        self.list(name, process.pid)

    def service(self, name: str, dsn: str, *, enabled: bool = True) -> None:
        self.start(name, SERVICE.format(dsn=json.dumps(dsn), enabled=json.dumps(enabled)))

    def list(self, name: str, pid: int, status: str = "online") -> None:
        self.listed.append(
            {
                "name": name,
                "pm_id": len(self.listed),
                "pid": pid,
                "pm2_env": {"status": status, "pm_uptime": time.time() * 1000},
            }
        )

    def ask(self, wait: int = 15) -> list[running.Instance]:
        (self.directory / "list.json").write_text(json.dumps(self.listed))
        request = json.dumps({"pm2": str(self.directory / "pm2.js"), "wait": wait})
        done = subprocess.run(
            ["node", "--experimental-websocket", "--input-type=module", "-", request],
            input=running.SCRIPT.read_text(),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-500:]
        assert "aaaaaaaa" not in done.stdout
        assert "bbbbbbbb" not in done.stdout
        return running.parse(done.stdout)


@pytest.fixture
def product(tmp_path: Path, installed: Path) -> Iterator[Product]:
    made = Product(tmp_path, installed)
    yield made
    for process in made.started:
        subprocess.run(["kill", "-KILL", "--", f"-{process.pid}"], check=False, capture_output=True)
        process.wait()


def test_every_process_says_which_tracker_its_client_has_and_a_cluster_is_asked_twice(product: Product):
    product.service("api", DSN)
    product.service("api", OTHER)
    product.service("mailer", DSN)
    found = product.ask()
    assert [one.service for one in found] == ["api", "api", "mailer"]
    assert [one.problem for one in found] == ["", "", ""]
    assert [one.clients for one in found] == [
        (EXPECTED,),
        (running.Client.of_dsn(OTHER),),
        (EXPECTED,),
    ]
    wrong = running.false_proofs(
        found, [{"name": name, "proof": "probe"} for name in ("api", "mailer")], EXPECTED
    )
    assert wrong == ["api is recorded as proven (probe) and really reports to 127.0.0.1:9000/1"]
    # Asked again: the inspectors were closed, the processes are as they were.
    assert product.ask() == found


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda product: product.start("api", WITHOUT_SDK), "api: no running SDK client"),
        (lambda product: product.service("api", DSN, enabled=False), "(off), not to"),
        (lambda product: product.service("api", ""), "no DSN"),
        (lambda product: product.list("api", 0, "stopped"), "api: it does not run (stopped)"),
    ],
    ids=["without the SDK", "switched off", "empty DSN", "stopped"],
)
def test_a_service_that_cannot_report_is_named(
    product: Product, prepare: Callable[[Product], None], problem: str
):
    prepare(product)
    (sentence,) = running.strays(product.ask(wait=5), ["api"], EXPECTED)
    assert problem in sentence


def test_the_service_below_npm_start_is_asked_and_not_npm(product: Product):
    script = product.write("web", SERVICE.format(dsn=json.dumps(OTHER), enabled="true"))
    product.start("npm", STARTER.format(script=script))
    (found,) = product.ask()
    assert found.clients == (running.Client.of_dsn(OTHER),)
