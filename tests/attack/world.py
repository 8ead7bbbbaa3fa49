"""A product whose directories belong to an unprivileged user, the same names in root's directory, and what root runs."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from unit.cutover import simulation
from unit.cutover.simulation import KEY, OLD, OWN_OLD, Crash, Simulation

from glitchtip_core import foreign_files
from glitchtip_core import pm2 as core_pm2
from glitchtip_core.memory import Memory
from glitchtip_cutover import drift, mirror, pm2, prechecks, running, surroundings, systemd, verify
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.host import Host
from glitchtip_cutover.watch import Watch, start_watch
from glitchtip_ops.mirror import read_legs
from glitchtip_ops.process import OpsError

#: The unprivileged user: no account has this number.
USER = 54321
#: Stands in every file that only root may read.
SECRET = "only-root-may-read-this"
#: Names below the user's directory, with what is in them.
FILES = {
    "home/app/.env": f"# {{secret}}\nA=1\n{KEY}={OLD}\nB=2\n",
    "home/app/.env.local": f"# {{secret}}\n{KEY}={OLD}\n",
    "home/app/own/.env": f"# {{secret}}\n{KEY}={OWN_OLD}\n",
    "home/app/package.json": '{{"name": "x", "note": "{secret}"}}',
    "home/app/ecosystem.config.js": "// {secret}\nmodule.exports = {{}};\n",
    "home/app/docker-compose.yml": "# {secret}\nservices: {{}}\n",
    "home/app/deploy.sh": "# {secret}\n",
    "home/app/src/instrument.js": "// {secret}\nSentry.init({{}});\n",
    "home/.pm2/dump.pm2": '[{{"name": "carrier", "note": "{secret}", "env": {{"SENTRY_DSN": "x"}}}}]',
    "home/.pm2/dump.pm2.bak": '[{{"name": "carrier", "note": "{secret}", "env": {{"SENTRY_DSN": "x"}}}}]',
    "home/.nvm/bin/pm2": "#!/usr/bin/env node\n// {secret}\n",
    "home/.nvm/bin/node": "{secret}\n",
    "home/.profile": "# {secret}\n",
    "home/.bashrc": "# {secret}\n",
    "home/ecosystem.config.js": "// {secret}\n",
    "log/mirror.jsonl": '{{"at": 1, "leg": "{secret}"}}\n',
    "home/unit.env": f"# {{secret}}\n{KEY}={OLD}\n",
}


class Attacked(Simulation):
    """The simulated product, with its files in ``theirs``, which the user owns; ``guarded`` has the same names, root's."""

    def __init__(self, root: Path) -> None:
        self.theirs, self.guarded = root / "u", root / "guarded"
        self.app, self.home = self.theirs / "home/app", self.theirs / "home"
        super().__init__(root, own=True, env_file=str(self.app / ".env"), app_dir=str(self.app))
        document = json.loads(json.dumps(dict(self.config.document)))
        for item in document["services"]:
            if isinstance(item, dict):
                item["env_file"] = str(self.app / "own/.env")
        document["pm2"] = {"node": str(self.home / ".nvm/bin/node"), "binary": str(self.home / ".nvm/bin/pm2")}
        document["pm2"]["home"] = str(self.home / ".pm2")
        self.config = simulation.parse_config(document, root / "config.json")
        for base, secret in ((self.theirs, "nothing"), (self.guarded, SECRET)):
            for name, text in FILES.items():
                (base / name).parent.mkdir(parents=True, exist_ok=True)
                (base / name).write_text(text.format(secret=secret))
                (base / name).chmod(0o700 if name.endswith(("pm2", "node")) else 0o600)
        for directory, _, names in os.walk(self.theirs):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                os.chown(path, USER, USER)
        (self.guarded / "home/.nvm/bin/node").chmod(0o4755)
        self.env_file = self.pm2.env_file = self.app / ".env"
        self.own_file = self.app / "own/.env"
        self.pm2.own = {"silent": self.own_file}
        for name, process in self.pm2.table.items():
            self.pm2.table[name] = dataclasses.replace(process, cwd=str(self.app))

    def host(self, observer: Callable[[str, str], None] | None = None) -> Host:
        """With what may give services their DSN, read as on a real host."""
        nothing = self.root / "proc"
        read = lambda listed: surroundings.read_surroundings(self.config, listed, nothing)  # noqa: E731
        return dataclasses.replace(super().host(observer), surroundings=read)

    def saved_lists(self) -> pm2.Pm2:
        """The real editor of PM2's saved lists."""
        return pm2.Pm2(Pm2Settings("root", self.home / ".pm2", self.home / ".nvm/bin/pm2", None))


@contextmanager
def simulated_processes(home: Path) -> Iterator[None]:
    """No process of this machine is looked at, and the services' user lives in ``home``."""
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_parents", simulation.children)
        for module in (running, pm2, systemd):
            patch.setattr(module, "read_running", simulation.read_running)
        patch.setattr(surroundings, "user_home", lambda _user: str(home))
        patch.setattr(surroundings, "ETC", home.parents[1] / "etc")
        patch.setattr(surroundings, "SPOOL", home.parents[1] / "spool")
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


# --- what root runs: a preparation, and the act ---------------------------------------------------------------


def _nothing(_world: Attacked) -> None:
    pass


def _recorded(world: Attacked) -> None:
    world.cutover().snapshot()


def _switched(world: Attacked) -> None:
    _recorded(world)
    world.cutover().apply()
    world.cutover().confirm()


def _unconfirmed(world: Attacked) -> None:
    _recorded(world)
    world.cutover().apply()


def _torn(world: Attacked) -> None:
    def crash(name: str) -> None:
        if name == "api":
            raise Crash

    _recorded(world)
    world.pm2.after_restart = crash
    with suppress(Crash):
        world.cutover().apply()
    world.pm2.after_restart = lambda _name: None


def _damaged(world: Attacked) -> None:
    _switched(world)
    world.env_file.write_text(world.env_file.read_text() + f"{KEY}=twice\n")


def _boot(world: Attacked) -> None:
    """Recovery before PM2 is up: the lists that PM2 will read are mended."""
    world.pm2.running = False
    world.pm2.rewrite_dump = world.saved_lists().rewrite_dump  # type: ignore[method-assign]
    world.cutover().recover()


def _phase_0(world: Attacked) -> None:
    prechecks.check_product(world.config, world.pm2, prechecks.Findings())  # type: ignore[arg-type]


@contextmanager
def no_room() -> Iterator[None]:
    """The user's disk takes no new file."""
    import pytest

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign_files, "_write_part", full)
        yield


def _full(act: Callable[[Attacked], object]) -> Callable[[Attacked], None]:
    def on_full_disk(world: Attacked) -> None:
        with no_room():
            act(world)

    return on_full_disk


def _watch(world: Attacked) -> None:
    start_watch(world.config, world.watches[-1])
    docker = SimpleNamespace(binary=world.root / "node", containers=lambda _project: [])
    Watch(
        world.config,
        world.host(),
        docker=docker,  # type: ignore[arg-type]
        memory=lambda: Memory(1000, 500, "meminfo"),
        roll_back=lambda _config, reason: (0, json.dumps(world.cutover().rollback(reason))),
        going_down=lambda: False,
    ).run()


def _count_legs(world: Attacked) -> None:
    list(read_legs(datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC), world.theirs / "log"))


def _systemd(world: Attacked) -> None:
    block = {"EnvironmentFiles": [f"{world.home}/unit.env (ignore_errors=no)"]}
    systemd.Systemd(world.config)._environment("api", block, dotenv=True, drop_in=True)
    list(surroundings._expand(world.app / ".env*"))


def _call_pm2(world: Attacked) -> None:
    access = world.saved_lists().access
    core_pm2.command(access)
    with suppress(core_pm2.CoreError):
        core_pm2.check_daemon(access)


Command = tuple[Callable[[Attacked], None], Callable[[Attacked], object]]
COMMANDS: dict[str, Command] = {
    "phase 0": (_nothing, _phase_0),
    "snapshot": (_nothing, lambda world: world.cutover().snapshot()),
    "plan": (_recorded, lambda world: world.cutover().plan()),
    "apply": (_recorded, lambda world: world.cutover().apply()),
    "confirm": (_unconfirmed, lambda world: world.cutover().confirm()),
    "status": (_switched, lambda world: world.cutover().status()),
    "drift": (_switched, lambda world: drift.run_drift(world.config, world.host())),
    "verify": (_switched, lambda world: verify.run_verify(world.config, world.host())),
    "watch": (_switched, _watch),
    "rollback": (_switched, lambda world: world.cutover().rollback()),
    "rollback of a damaged file": (_damaged, lambda world: world.cutover().rollback()),
    "rollback of one service": (_switched, lambda world: world.cutover().rollback(service="silent")),
    "recover": (_torn, lambda world: world.cutover().recover()),
    "recover at boot": (_torn, _boot),
    "rollback on a full disk": (_switched, _full(lambda world: world.cutover().rollback())),
    "recover at boot on a full disk": (_torn, _full(_boot)),
    "mirror": (_switched, lambda world: mirror.still_mirrored(world.config, world.host(), mirror.settings_of(world.config))),
    "counts of the mirror": (_nothing, _count_legs),
    "systemd": (_nothing, _systemd),
    "PM2": (_nothing, _call_pm2),
}


def perform(world: Attacked, command: str) -> str:
    """Run one command; the sentence with which it ended, empty when it succeeded."""
    try:
        COMMANDS[command][1](world)
    except (CutoverError, OpsError, core_pm2.CoreError, OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


# --- what may not happen ------------------------------------------------------------------------------------


def fingerprint(directory: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Every name below a directory: inode, mode, owner, number of names that are not ours, bytes."""
    found = {}
    for place, directories, names in os.walk(directory):
        for name in (*directories, *names):
            path = Path(place) / name
            info = path.lstat()
            data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
            found[str(path.relative_to(directory))] = (info.st_ino, info.st_mode, info.st_uid, info.st_gid, data)
    return found


def leaks(theirs: Path, guarded: Path) -> list[str]:
    """What the user has now and must not have: root's bytes, or a program with root's power."""
    roots = {(info.st_dev, info.st_ino) for info in (path.lstat() for path in guarded.rglob("*"))}
    found = []
    for place, _, names in os.walk(theirs):
        for name in names:
            path = Path(place) / name
            info = path.lstat()
            if not stat.S_ISREG(info.st_mode) or (info.st_dev, info.st_ino) in roots:
                continue
            if info.st_mode & 0o7000:
                found.append(f"{path} has mode {stat.S_IMODE(info.st_mode):o}")
            if SECRET in path.read_text(errors="replace") and (info.st_uid == USER or info.st_mode & 0o004):
                found.append(f"{path} holds root's bytes")
    return found
