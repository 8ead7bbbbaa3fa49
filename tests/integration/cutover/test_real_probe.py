"""The probe with a real Node.js and the real SDK: it judges what the service's own start sets up, or it does not count.

Each service is started here; afterwards its script must have run once, and once only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from integration.cutover.conftest import NEW_KEY, OLD_KEY
from integration.cutover.tracker import FakeTracker

from glitchtip_core.dsn import parse_dsn
from glitchtip_core.process import Completed
from glitchtip_cutover.api import Tracker
from glitchtip_cutover.config import Side
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import ServiceError, UnprovenServiceError
from glitchtip_cutover.launch import Launch, launch_of_process, run_launch
from glitchtip_cutover.manager import Process
from glitchtip_cutover.proof import Prober, Proof

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or shutil.which("npm") is None, reason="node and npm are not installed"
)
NAME = "api"
INSTRUMENT = """
require('dotenv').config({ path: __dirname + '/../.env', quiet: true });
const Sentry = require('@sentry/node');
Sentry.init({ dsn: process.env.SENTRY_DSN, enabled: process.env.SENTRY_ENABLED !== 'false', sampleRate: 0.0001 });
"""
ESM = "import * as Sentry from '@sentry/node';\nSentry.init({{ dsn: {dsn} }});\n"
RUNS = "require('node:fs').appendFileSync('runs', 'x'); setInterval(() => {}, 1000);\n"
ESM_RUNS = "import { appendFileSync } from 'node:fs';\nappendFileSync('runs', 'x'); setInterval(() => {}, 1000);\n"
PLAIN = {"src/instrument.js": INSTRUMENT, "main.js": "require('./src/instrument');\n" + RUNS}
STILL = "would still report to .* project 7"


class Processes:
    """A manager of one process that is there already."""

    def launch(self, process: Process) -> Launch:
        return launch_of_process(process)

    def run_launch(self, _process: Process, launch: Launch, option: str, timeout: float) -> Completed:
        return run_launch(launch, option, timeout)


@dataclass
class Product:
    """One service in a directory of its own, and its trackers."""

    root: Path
    old: FakeTracker
    new: FakeTracker
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in {".env": f"SENTRY_DSN={self.new.dsn}\n", **files}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("OLD_DSN", self.old.dsn).replace("NEW_DSN", self.new.dsn))

    def start(self, command: list[str], **variables: str) -> Process:
        """Start it, and wait until its script has run."""
        given = {"PATH": os.environ["PATH"], "HOME": str(self.root)}
        given |= {key: value.replace("OLD_DSN", self.old.dsn) for key, value in variables.items()}
        running = subprocess.Popen(
            command, cwd=self.root, env=given, stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.started.append(running)
        deadline = time.monotonic() + 60
        while not (self.root / "runs").exists():
            assert running.poll() is None, "the service of this test does not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return Process(
            name=NAME,
            pm_id=0,
            pid=running.pid,
            status="online",
            started_at=time.time(),
            restarts=0,
            cwd=str(self.root),
            interpreter="node",
            cron_job=False,
            module=False,
            environment={},
            command=tuple(command),
        )

    def probe(self, process: Process, **settings: Any) -> Proof:
        service = {"name": NAME, **({"instrument": settings["own"]} if "own" in settings else {})}
        config = parse_config(
            {
                "migration_id": "m",
                "manager": "systemd",
                "state_dir": str(self.root / "state"),
                "env_file": str(self.root / ".env"),
                "app_dir": str(self.root),
                "services": [service],
                "probe_wait": 5,
            },
            self.root / "config.json",
        )
        (self.root / "token").write_text(self.new.token)
        side = Side("new", self.new.url, "ai-admin", "ai-admin", self.root / "token")
        prober = Prober(config, monotonic=time.monotonic, sleep=time.sleep, manager=Processes())  # type: ignore[arg-type]
        try:
            return prober.probe(process, parse_dsn(self.new.dsn), Tracker(side))
        finally:
            assert (self.root / "runs").read_text() == "x", "the service's script was run a second time"

    def stop(self) -> None:
        for running in self.started:
            os.killpg(running.pid, 9)
            running.wait()


@pytest.fixture
def product(tmp_path: Path, installed: Path) -> Iterator[Product]:
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    with FakeTracker(key=OLD_KEY, project_id="7") as old, FakeTracker(key=NEW_KEY, project_id="3") as new:
        made = Product(tmp_path, old, new)
        try:
            yield made
        finally:
            made.stop()


@pytest.mark.parametrize(
    ("files", "command", "own"),
    [
        (PLAIN, ["node", "main.js"], None),
        ({**PLAIN, "main.js": "require('dotenv').config({ quiet: true });\n" + PLAIN["main.js"]}, ["node", "main.js"], "default dotenv"),
        ({**PLAIN, "main.js": "const c = require('./c'); " + PLAIN["main.js"], "c.js": "exports.a = 1;"}, ["node", "."], "config"),
        (
            {"i.mjs": ESM.format(dsn="process.env.SENTRY_DSN"), "main.mjs": ESM_RUNS},
            ["node", "--env-file=.env", "--import", "./i.mjs", "main.mjs"],
            "preload",
        ),
        ({"own/i.mjs": ESM.format(dsn="'NEW_DSN'"), "main.mjs": "import './own/i.mjs';\n" + ESM_RUNS}, ["node", "main.mjs"], "own/i.mjs"),
        ({**PLAIN, "package.json": '{"main": "main.js", "scripts": {"start": "node main.js"}}'}, ["npm", "start"], "npm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_service_on_the_new_dsn_is_proven(
    product: Product, files: dict[str, str], command: list[str], own: str | None
) -> None:
    """Also where the SDK would send but one in 10,000 events."""
    product.write({"package.json": '{"main": "main.js"}', **files})
    process = product.start(command)
    proof = product.probe(process, **({"own": own} if own and "/" in own else {}))
    stored = next(event for event in product.new.events if event["eventID"] == proof.event_id)
    assert {"key": "service", "value": NAME} in stored["tags"]
    assert product.old.events == []


OTHER_PATH = '{"scripts": {"start": "DOTENV_CONFIG_PATH=other.env node -r dotenv/config main.js"}}'
WRITTEN_IN = ESM.format(dsn="'OLD_DSN'")


@pytest.mark.parametrize(
    ("files", "command", "variables"),
    [
        ({**PLAIN, "i.mjs": WRITTEN_IN, "main.mjs": ESM_RUNS}, ["node", "--import", "./i.mjs", "main.mjs"], {}),
        ({**PLAIN, "i.cjs": "require('@sentry/node').init({ dsn: 'OLD_DSN' });"}, ["node", "main.js"], {"NODE_OPTIONS": "--require ./i.cjs"}),
        ({**PLAIN, "other.env": "SENTRY_DSN=OLD_DSN\n", "package.json": OTHER_PATH}, ["npm", "start"], {}),
        ({**PLAIN, "other.env": "SENTRY_DSN=OLD_DSN\n"}, ["node", "-r", "dotenv/config", "main.js", "dotenv_config_path=other.env"], {}),
        ({**PLAIN, "other.env": "SENTRY_DSN=OLD_DSN\n"}, ["node", "--env-file=other.env", "main.js"], {}),
        (PLAIN, ["sh", "-c", "SENTRY_DSN='OLD_DSN' node main.js; true"], {}),
        (PLAIN, ["node", "main.js"], {"SENTRY_DSN": "OLD_DSN"}),
    ],
    ids=["ESM preload", "NODE_OPTIONS", "npm start with another dotenv path", "dotenv by argument", "env-file", "shell", "environment"],
)  # fmt: skip
def test_a_service_that_still_reports_elsewhere_is_found(
    product: Product, files: dict[str, str], command: list[str], variables: dict[str, str]
) -> None:
    """Although the instrument file of the others, loaded after that, would say otherwise."""
    product.write(files)
    process = product.start([word.replace("OLD_DSN", product.old.dsn) for word in command], **variables)
    with pytest.raises(ServiceError, match=STILL) as caught:
        product.probe(process)
    assert not isinstance(caught.value, UnprovenServiceError)
    assert product.new.events == []


INIT = "require('@sentry/node').init({ dsn: process.env.OTHER });\n"


def before(text: str) -> Callable[[], dict[str, str]]:
    return lambda: {**PLAIN, "main.js": text + PLAIN["main.js"]}


def after(text: str, name: str = "late.js") -> Callable[[], dict[str, str]]:
    return lambda: {**PLAIN, "main.js": f"require('./src/instrument');\nrequire('./{name}');\n" + RUNS, name: text}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (before("process.env.SENTRY_DSN = 'x' + 1;\n"), r"main.js:1 changes settings before the instrument file"),
        (before("process.env['SENTRY_DSN'] ??= 'x';\n"), r"main.js:1 changes settings before the instrument file"),
        (before("\nObject.assign(process.env, {});\n"), r"main.js:2 changes settings before the instrument file"),
        (before("require('dotenv').config({ path: '/none', override: true });\n"), r"main.js:1 changes settings before"),
        (
            lambda: {**before("require('./c');\n")(), "c.js": "require('dotenv').config({ path: '/none', quiet: true })"},
            r"c.js:1 reads variables .*before the instrument",
        ),
        (lambda: {**before("require('./c');\n")(), "c.js": "// nothing\nprocess.env.SENTRY_DSN = ''"}, r"c.js:2 changes SENTRY_DSN"),
        (lambda: {**PLAIN, "main.js": INIT + RUNS}, "its script main.js does not load the instrument file src/instrument.js"),
        (lambda: {"main.js": RUNS}, "there is no instrument file .*src/instrument.js"),
        (after(INIT), "late.js:1 sets an SDK client up"),
        (after("exports.dsn = 'https://0123456789abcdef0123456789abcdef@sentry.example.org/7';"), "late.js:1 holds a DSN"),
        (lambda: {**PLAIN, ".env": "SENTRY_DSN=\n"}, "the SDK client has no DSN"),
        (lambda: {**PLAIN, ".env": "SENTRY_DSN=NEW_DSN\nSENTRY_ENABLED=false\n"}, "the SDK client is switched off"),
        (lambda: {**PLAIN, "main.js": "process.title = 'my app';\n" + PLAIN["main.js"]}, "does not show the script"),
        (lambda: {**PLAIN, "src/instrument.js": "// nothing\n"}, "set up no SDK client"),
    ],
)  # fmt: skip
def test_a_probe_that_cannot_tell_does_not_count(
    product: Product, files: Callable[[], dict[str, str]], sentence: str
) -> None:
    product.write(files())
    process = product.start(["node", "main.js"])
    if "title" in files().get("main.js", ""):
        # Otherwise the manager's own record of the command line serves.
        process = Process(**{**process.__dict__, "command": ()})
    with pytest.raises(UnprovenServiceError, match=sentence):
        product.probe(process)
    assert product.new.events == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process files of its own")
def test_a_probe_sees_the_files_that_only_the_service_sees(product: Product) -> None:
    """As under systemd's PrivateTmp= and ProtectSystem=; the DSN is in a file that is not there outside."""
    own = "require('@sentry/node').init({ dsn: require('node:fs').readFileSync('/mnt/own.dsn', 'utf8') });\n"
    product.write({**PLAIN, "src/instrument.js": own})
    mount = f"mount -t tmpfs own /mnt && printf %s '{product.new.dsn}' > /mnt/own.dsn"
    process = product.start(["unshare", "--mount", "sh", "-c", f"{mount} && exec node main.js"])
    assert not Path("/mnt/own.dsn").exists()
    assert product.probe(process).kind == "probe"
