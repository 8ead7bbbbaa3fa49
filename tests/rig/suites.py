"""`make contract` and `make molecule`: suites that need an engine, with all their set-up."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from stack import Stack, StackError, start, stop

from rig import engine, images
from rig.shell import ROOT, RigError, run, say

#: Alerts are evaluated every two seconds instead of every sixty, so that their rules do not wait.
QUICK = {"ALERT_NOTIFICATION_INTERVAL": "2"}
CONTRACT_PORTS = {"5.2": 28052, "6.2": 28062}


def contract() -> None:
    """The contract suite on the stand-in in both modes, or on the server that GLITCHTIP_URL names."""
    if os.environ.get("GLITCHTIP_URL"):
        _pytest_contract({})
        return
    engine.ensure()
    images.build_all(["postgres", "valkey", *(f"standin-{line}" for line in images.GLITCHTIP_LINES)])
    say("contract: the stand-in in both modes, side by side ...")
    with ThreadPoolExecutor(max_workers=len(CONTRACT_PORTS)) as pool:
        list(pool.map(_contract_on_standin, CONTRACT_PORTS))


def _contract_on_standin(line: str) -> None:
    name = f"gtm-contract-{line.replace('.', '')}"
    stack = Stack(
        name,
        images.tag(f"standin-{line}"),
        images.tag("postgres"),
        images.tag("valkey"),
        line=line,
        published=CONTRACT_PORTS[line],
        environment=QUICK,
    )
    try:
        start(stack)
        _pytest_contract(
            {
                "GLITCHTIP_URL": stack.url,
                "GLITCHTIP_EMAIL": stack.email,
                "GLITCHTIP_PASSWORD": stack.superuser_password,
                "GLITCHTIP_LINE": line,
                "GLITCHTIP_ALLOW_PRIVATE_IPS": "true",
                "GLITCHTIP_UPTIME_ALLOW_PRIVATE_IPS": "true",
                "GLITCHTIP_RECEIVER": _gateway(f"{name}-network"),
                "CONTRACT_DESTRUCTIVE": "1",
            }
        )
    except StackError as error:
        raise RigError(f"The stand-in of the {line} line does not start: {error}") from error
    finally:
        stop(name)


def _gateway(network: str) -> str:
    """This machine's address on a Docker network: where containers reach a receiver that the suite runs."""
    return run(
        ["docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", network]
    ).stdout.strip()


def _pytest_contract(environment: dict[str, str]) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "tests/contract"]
    done = run(argv, env=environment, check=False, timeout=1800)
    say(
        f"contract on {environment.get('GLITCHTIP_URL') or os.environ['GLITCHTIP_URL']}\n{done.stdout.strip()}"
    )
    if done.returncode:
        raise RigError(f"The contract suite failed (exit code {done.returncode}, see the lines above).")


def molecule() -> None:
    """Every Molecule scenario, one after the other."""
    engine.ensure()
    images.build_all(
        ["product", "registry", "postgres", "valkey", *(f"standin-{line}" for line in images.GLITCHTIP_LINES)]
    )
    environment = {"GTM_SERVER_IMAGE": images.tag("server"), "GTM_PRODUCT_IMAGE": images.tag("product")}
    for scenario in sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")):
        say(f"molecule: scenario {scenario}")
        _run(
            [str(ROOT / ".venv/bin/molecule"), "test", "--scenario-name", scenario],
            environment,
            f"Molecule scenario {scenario}",
        )


def _run(argv: list[str], environment: dict[str, str], what: str) -> None:
    path = f"{ROOT}/.venv/bin:{os.environ['PATH']}"
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "PATH": path, **environment}, check=False)
    if done.returncode:
        raise RigError(f"{what} failed (exit code {done.returncode}, see the lines above).")
