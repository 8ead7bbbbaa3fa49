"""Hold every mutation against the contract suite: each must turn it red; the proxy alone must leave it green.

All of them share one stand-in (processes of this machine, no containers); each has a proxy and a pytest of its
own. What is printed at the end is also in artifacts/mutations.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local import Local, Unavailable, running

from contract_mutations.catalogue import MUTATIONS, Mutation
from contract_mutations.proxy import Proxy

ROOT = Path(__file__).resolve().parents[2]
#: The share of mutations that must be noticed.
ENOUGH = 0.9
#: How many mutations are held against the suite at a time; they mostly wait.
AT_ONCE = 5
#: What a mutated server fails to do is not waited for as long as on a live one.
PATIENCE = {"CONTRACT_VISIBLE_SECONDS": "20", "CONTRACT_DELIVERY_SECONDS": "30"}
CONTROL = Mutation("control", "The proxy alters nothing", ())


@dataclass(frozen=True)
class Verdict:
    """What the suite said of one mutation. ``rule`` is the first that noticed, ``altered`` how often it acted."""

    name: str
    sentence: str
    noticed: bool
    rule: str
    altered: int
    rules_run: int
    seconds: float


async def _pytest(
    local: Local, proxy: Proxy, arguments: Sequence[str], mutation: Mutation
) -> dict[str, object]:
    """Run a part of the suite through the proxy; its report and ``exit``, the exit code."""
    with tempfile.TemporaryDirectory(prefix="mutation-") as directory:
        report = Path(directory, "report.json")
        environment = {
            **os.environ,
            **PATIENCE,
            "GLITCHTIP_URL": proxy.url,
            "GLITCHTIP_EMAIL": local.email,
            "GLITCHTIP_PASSWORD": local.password,
            "GLITCHTIP_LINE": "",
            "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
            "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
            "CONTRACT_RECEIVER": "",
            "CONTRACT_DESTRUCTIVE": "1" if mutation.destructive else "",
            "CONTRACT_REPORT": str(report),
        }
        argv = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--confcutdir=tests/contract", *arguments]
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        found = json.loads(report.read_text()) if report.exists() else {"failures": [], "rules": 0}
        return {**found, "exit": process.returncode, "output": output.decode(errors="replace")}


async def _judge(local: Local, mutation: Mutation, where: Sequence[str], room: asyncio.Semaphore) -> Verdict:
    """The part of the suite that should notice first, then, if it did not, ``where``: the whole suite."""
    async with room:
        started = time.monotonic()
        port = urlsplit(local.url).port
        assert port is not None
        proxy = Proxy(port, mutation.on_request, mutation.on_answer, mutation.keep)
        await proxy.start()
        whole = ("-n", "6" if mutation.name == CONTROL.name else "3", "--dist", "worksteal", *where)
        found: dict[str, object] = {}
        ran = 0
        for arguments in ([*mutation.first, "-x"] if mutation.first else None, [*whole, "--maxfail=1"]):
            if arguments is None:
                continue
            found = await _pytest(local, proxy, arguments, mutation)
            ran += int(str(found["rules"]))
            if found["failures"] or found["exit"] not in {0, 5}:
                break
        await proxy.stop()
    failures = found["failures"]
    assert isinstance(failures, list)
    if found["exit"] in {0, 5}:
        rule = ""
    elif failures:
        rule = str(failures[0]).removeprefix("tests/contract/")
    else:
        rule = f"before the first rule: {str(found['output']).strip().splitlines()[-1][:160]}"
    if mutation.name == CONTROL.name and rule:
        print(found["output"], flush=True)
    noticed = bool(rule) and (proxy.altered > 0 or mutation.name == CONTROL.name)
    verdict = Verdict(
        mutation.name,
        mutation.sentence,
        noticed,
        rule,
        proxy.altered,
        ran,
        round(time.monotonic() - started, 1),
    )
    print(f"  {_row(verdict)}", flush=True)
    return verdict


def _row(verdict: Verdict) -> str:
    if verdict.name == CONTROL.name:
        said = verdict.rule or f"green, as it must be ({verdict.rules_run} rules)"
    elif verdict.noticed:
        said = verdict.rule
    elif verdict.rule:
        said = f"NOT EXERCISED: nothing was altered, yet red: {verdict.rule}"
    else:
        said = f"NOT NOTICED by {verdict.rules_run} rules, altered {verdict.altered} times"
    return f"{verdict.seconds:6.1f} s  {verdict.name:<46} {said}"


async def _all(local: Local, mutations: Sequence[Mutation], where: Sequence[str]) -> list[Verdict]:
    room = asyncio.Semaphore(AT_ONCE)
    return await asyncio.gather(*(_judge(local, mutation, where, room) for mutation in (CONTROL, *mutations)))


def main(*, short: bool = False) -> bool:
    """Run all mutations, or the few of the short form; whether enough were noticed and the control was green.

    Raises :class:`local.Unavailable` when the stand-in cannot run on this machine.
    """
    only = set(os.environ.get("MUTATIONS", "").split())
    mutations = [found for found in MUTATIONS if (found.name in only if only else found.short or not short)]
    # The short form looks at the files that its mutations are for, the full one at the whole suite.
    where = sorted({mutation.first[0] for mutation in mutations}) if short else ["tests/contract"]
    started = time.monotonic()
    print(f"mutations: {len(mutations)} and a control, {AT_ONCE} at a time ...", flush=True)
    # Many processes ask at a time: the web server has a thread a connection of its database pool.
    with running("5.2", environment={"DATABASE_POOL_MAX_SIZE": "20"}) as local:
        control, *verdicts = asyncio.run(_all(local, mutations, where))
    seconds = round(time.monotonic() - started, 1)
    noticed = sum(verdict.noticed for verdict in verdicts)
    print("\n" + "\n".join(_row(verdict) for verdict in [control, *verdicts]))
    print(f"\nmutations: {noticed} of {len(verdicts)} noticed in {seconds:.0f} s", flush=True)
    result = {
        "mutations": len(verdicts),
        "noticed": noticed,
        "control_green": not control.rule,
        "seconds": seconds,
        "verdicts": [asdict(verdict) for verdict in [control, *verdicts]],
    }
    path = ROOT / "artifacts" / ("mutations-short.json" if short else "mutations.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    return noticed >= ENOUGH * len(verdicts) and not control.rule


__all__ = ["Unavailable", "main"]
