"""`make contract`, `make mutations` and `make molecule`: suites with all their set-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from contract import neighbour, report
from contract_mutations.run import main as run_mutations
from local import Unavailable, free_port
from stack import Stack, StackError, end_empty, start, start_empty, stop

from rig import engine, images, subject, world
from rig.reasons import reasons
from rig.shell import CACHE, ROOT, RigError, run, say

ARTIFACTS = ROOT / "artifacts"
#: Alerts are evaluated every two seconds instead of every sixty, so that their rules do not wait.
QUICK = {
    "ALERT_NOTIFICATION_INTERVAL": "2",
    "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
    "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
    "ENABLE_USER_REGISTRATION": "true",
    "EMAIL_URL": "consolemail://",
}
CONTRACT_PORTS = {"5.2": 28052, "6.2": 28062}
#: Seconds after which a server that did not start is started once more.
AGAIN_AFTER = 20
#: The rules mostly wait for a batch or a tick, so that several processes are kept busy by one core.
WORKERS = os.environ.get("CONTRACT_WORKERS", "6")


def contract() -> None:
    """The contract suite on the stand-in in both modes, or on the server that GLITCHTIP_URL names.

    Writes artifacts/contract.json, and for the stand-in one file a mode beside it.
    """
    if os.environ.get("GLITCHTIP_URL"):
        _contract_on(ARTIFACTS / "contract.json", {}, captured=False)
        return
    engine.ensure()
    images.build_all(["postgres", "valkey", *subject.standins()])
    world.ensure_network()
    given = subject.given()
    chosen = [given] if given else [subject.of_line(line) for line in CONTRACT_PORTS]
    say(f"contract: {' and '.join(f'{one.name} {one.line}' for one in chosen)}, side by side ...")
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        pending = [pool.submit(_contract_in_containers, one) for one in chosen]
    joined = report.joined([run for future in pending for run in future.result()])
    (ARTIFACTS / "contract.json").write_text(json.dumps(joined, indent=2) + "\n")
    say(
        f"contract: {joined['passed']} passed, {joined['failed']} failed, {joined['not_applicable']} not applicable in"
        f" all runs together, {time.monotonic() - started:.0f} s"
    )


def contract_empty() -> None:
    """The rules of a server without any user, on the server that GLITCHTIP_URL names."""
    if not os.environ.get("GLITCHTIP_URL"):
        raise RigError("GLITCHTIP_URL must name the server; `make contract` covers the stand-in.")
    _contract_on(ARTIFACTS / "contract-empty.json", {}, captured=False, suite=EMPTY)


def _contract_in_containers(chosen: subject.Subject) -> list[dict[str, Any]]:
    """The reports of a GlitchTip in containers that are made for it: empty at first, then with an account and a neighbour."""
    line = chosen.line
    name = f"gtm-contract-{line.replace('.', '')}"
    stack = Stack(
        name,
        chosen.image,
        images.tag("postgres"),
        images.tag("valkey"),
        line=line,
        published=CONTRACT_PORTS[line],
        # The rig's own, which is there: engines have few address ranges to give away.
        network=world.NETWORK,
        environment=QUICK,
    )
    path = ARTIFACTS / f"contract-{line}.json"
    empty = ARTIFACTS / f"contract-{line}-empty.json"
    asked = {
        "GLITCHTIP_URL": stack.url,
        "GLITCHTIP_LINE": line if chosen.given else "",
        "CONTRACT_DESTRUCTIVE": "1",
    }
    try:
        _start_empty(stack)
        _contract_on(empty, asked, captured=True, suite=EMPTY)
        end_empty(stack)
        start(stack)
        with _mails(stack) as logs, neighbour.at_work(stack.url, stack.email, stack.superuser_password, line):
            _contract_on(
                path,
                {
                    **asked,
                    "GLITCHTIP_MAIL_LOG": os.pathsep.join(map(str, logs)),
                    "GLITCHTIP_EMAIL": stack.email,
                    "GLITCHTIP_PASSWORD": stack.superuser_password,
                    "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
                    "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
                    "CONTRACT_RECEIVER": f"{_gateway(world.NETWORK)}:{free_port()}",
                },
                captured=True,
            )
    except StackError as error:
        raise RigError(f"{chosen.name} of the {line} line does not start: {error}") from error
    finally:
        stop(name)
    found: list[dict[str, Any]] = []
    for file, what in ((empty, f"{chosen.name} {line} without users"), (path, f"{chosen.name} {line}")):
        found.append({**json.loads(file.read_text()), "server": what})
        file.write_text(json.dumps(found[-1], indent=2) + "\n")
    return found


def _start_empty(stack: Stack) -> None:
    """Start the server; once more from nothing when the engine could not, which says nothing about any rule.

    Raises :class:`StackError` when it cannot be started either time.
    """
    try:
        start_empty(stack)
    except StackError as error:
        say(f"contract: {stack.name} did not start, once more in {AGAIN_AFTER} s: {error}")
        stop(stack.name)
        time.sleep(AGAIN_AFTER)
        start_empty(stack)


@contextmanager
def _mails(stack: Stack) -> Iterator[list[Path]]:
    """Files that hold what web and worker print, the mails among it, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="contract-mails-") as directory, ExitStack() as open_things:
        logs = []
        for part in ("web", "worker"):
            log = Path(directory, part)
            output = open_things.enter_context(log.open("wb"))
            argv = ["docker", "logs", "--follow", f"{stack.name}-{part}"]
            follower = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
            open_things.callback(follower.wait)
            open_things.callback(follower.terminate)
            logs.append(log)
        yield logs


def _gateway(network: str) -> str:
    """This machine's address on a Docker network: where containers reach a receiver that the suite runs."""
    return run(
        ["docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network]
    ).stdout.strip()


FULL = ["-n", WORKERS, "--dist", "worksteal", "tests/contract"]
EMPTY = ["tests/contract_empty"]


def _contract_on(
    path: Path, environment: dict[str, str], *, captured: bool, suite: Sequence[str] = FULL
) -> None:
    """Run the suite; what it needs to know, the password above all, travels in the environment.

    Raises :class:`RigError` with the suite's own sentence when it could not begin, else when a rule failed.
    """
    argv = [sys.executable, "-m", "pytest", "-q", *suite]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **environment, "CONTRACT_REPORT": str(path)},
        stdout=subprocess.PIPE if captured else None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.stdout:
        say(done.stdout.strip())
    if done.returncode == _USAGE:
        raise RigError(done.stderr.strip().removeprefix("ERROR: ").removeprefix("contract: "))
    if done.returncode:
        raise RigError(
            f"The server does not keep the contract (exit code {done.returncode}, see the lines above).{done.stderr[-600:]}"
        )


#: The exit code of pytest for what the user gave.
_USAGE = 4


def mutations(*, short: bool = False) -> None:
    """The suite that tests the contract suite: nine in ten small faults of a server must turn it red."""
    try:
        enough = run_mutations(short=short)
    except Unavailable as error:
        raise RigError(f"The stand-in cannot run without containers: {error}.") from error
    if not enough:
        raise RigError(
            "The contract suite notices too few mutations, or its control is red (see the table above)."
        )


def mutations_short() -> None:
    """Six mutations and the control."""
    mutations(short=True)


#: Has a target of its own: with it the gate would not end in time.
TOPOLOGY = "topology"


def molecule() -> None:
    """The Molecule scenarios that SCENARIOS names (separated by commas), else every one but that of the topology.

    Two at a time: each server is bound to one CPU. Raises RigError when one fails.
    """
    # In this order the walk, the longest, comes first.
    names = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    wanted = [name for name in os.environ.get("SCENARIOS", "").split(",") if name]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise RigError(f"SCENARIOS={','.join(unknown)}: no such scenario; there are {', '.join(names)}.")
    _scenarios(wanted or [name for name in names if name != TOPOLOGY])


def topology() -> None:
    """The scenario of several servers."""
    _scenarios([TOPOLOGY])


def prepare() -> None:
    """What suites share: the engine, every image, the network and the registry."""
    engine.ensure()
    images.build_all(["product", "registry", "postgres", "valkey", *subject.standins()])
    world.ensure_network()
    world.ensure_registry()


def _scenarios(names: list[str]) -> None:
    prepare()
    with ThreadPoolExecutor(max_workers=2) as pool:
        failed = [name for name, well in zip(names, pool.map(_scenario, names), strict=True) if not well]
    if failed:
        for name in failed:
            say(f"molecule: what scenario {name} failed on:")
            say("\n".join(f"  {line}" for line in reasons(_log(name).read_text(errors="replace"))))
        raise RigError(f"Molecule scenario {', '.join(failed)} failed (see the lines above).")


def _log(name: str) -> Path:
    return CACHE / f"molecule-{name}.log"


def _subjects() -> dict[str, str]:
    """What scenario `glitchtip` deploys on the server of each line: repository and version."""
    found = {}
    for line in images.GLITCHTIP_LINES:
        chosen = subject.of_line(line)
        found[f"GTM_IMAGE_{line[0]}"] = f"{world.REGISTRY_NAME}/{chosen.repository}"
        found[f"GTM_VERSION_{line[0]}"] = chosen.version
    return found


def _scenario(name: str) -> bool:
    """Run one scenario; its lines are kept in a file, and shown when it fails."""
    log = _log(name)
    say(f"molecule: scenario {name} begins ({log.relative_to(ROOT)})")
    began = time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            [str(ROOT / ".venv/bin/molecule"), "test", "--scenario-name", name],
            cwd=ROOT,
            env={
                **os.environ,
                "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
                "GTM_SERVER_IMAGE": images.tag("server"),
                "GTM_PRODUCT_IMAGE": images.tag("product"),
                **_subjects(),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        say("\n".join(log.read_text(errors="replace").splitlines()[-150:]))
    result = f"failed with exit code {done.returncode}" if done.returncode else "passed"
    say(f"molecule: scenario {name} {result} after {time.monotonic() - began:.0f} s")
    return done.returncode == 0
