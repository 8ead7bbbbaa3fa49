"""Set-up of the controller: virtual environment, collections, Debian packages. Standard library only.

Runs with the system's python3 (>= 3.11) before anything is installed, is idempotent, and takes seconds the second time: each step
leaves a stamp with the checksum of what it installed from (``.cache/stamps``).

    python3 tests/rig/setup.py            everything
    python3 tests/rig/setup.py --venv     only Python: lint and unit tests need no root and no engine
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
COLLECTIONS = ROOT / "requirements.yml"
UV = "uv==0.13.8"
#: The PyPI package that carries the collections of requirements.yml in these versions; used where Galaxy cannot be reached.
ANSIBLE_BUNDLE = "ansible==12.3.0"
#: command -> Debian package that brings it, for the parts that need an engine and images.
PACKAGES = {
    "dockerd": "docker.io",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
#: The same for tests that run real processes on this machine: the sample product, PostgreSQL under a backup's proof, and
#: the stand-in without containers.
TEST_PACKAGES = {
    "node": "nodejs",
    "npm": "npm",
    "/usr/lib/postgresql/*/bin/initdb": "postgresql",
    "redis-server": "redis-server",
    "nginx": "nginx",
    "chromium": "chromium",
}


class SetupError(Exception):
    """One sentence: what is missing, and what to do."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def run(argv: list[str], *, env: dict[str, str] | None = None) -> None:
    """Run quietly; on failure raise SetupError with the command's last lines."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise SetupError(f"`{' '.join(argv[:4])} ...` failed with exit code {done.returncode}:\n{tail}")


def stamp_matches(name: str, text: str) -> bool:
    """Whether the step ``name`` last succeeded with exactly these inputs."""
    path = CACHE / "stamps" / name
    return path.exists() and path.read_text() == text


def write_stamp(name: str, text: str) -> None:
    """Record that the step ``name`` succeeded with these inputs."""
    path = CACHE / "stamps" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def find_uv() -> str | None:
    """Path of uv: the machine's, else our own copy, installed with pip when PyPI has it; None when it cannot be had."""
    own = CACHE / "uv" / "bin" / "uv"
    if own.exists():
        return str(own)
    if found := shutil.which("uv"):
        return found
    venv.create(CACHE / "uv", with_pip=True)
    try:
        run([str(CACHE / "uv/bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", UV])
    except SetupError:
        return None
    return str(own)


def make_venv() -> None:
    """Create .venv from requirements.lock (hash-checked), with uv where it can be had, else with pip."""
    want = hashlib.sha256(LOCK.read_bytes() + sys.version.encode() + str(ROOT).encode()).hexdigest()
    if stamp_matches("venv", want) and (VENV / "bin/python").exists():
        return
    started = time.monotonic()
    try:
        uv = find_uv()
        if uv:
            run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(VENV)])
            sync = [uv, "pip", "sync", "-q", "--compile-bytecode", "--python", str(VENV / "bin/python")]
            run([*sync, "--require-hashes", str(LOCK)])
        else:
            venv.create(VENV, with_pip=True, clear=True)
            pip = [str(VENV / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run([*pip, "--require-hashes", "-r", str(LOCK)])
    except SetupError as error:
        raise SetupError(
            f"The Python packages could not be installed from PyPI; check the network, then run again. {error}"
        ) from error
    write_stamp("venv", want)
    say(f"Python environment ready with {'uv' if uv else 'pip'} ({time.monotonic() - started:.1f} s)")


def reachable(url: str, seconds: float = 4.0) -> bool:
    """Whether an HTTP server answers there at all; any status counts."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def make_collections() -> None:
    """Install the collections of requirements.yml from Galaxy, else out of the `ansible` wheel on PyPI (same versions, checked)."""
    text = COLLECTIONS.read_text()
    want = hashlib.sha256(text.encode()).hexdigest()
    target = CACHE / "collections"
    if stamp_matches("collections", want) and target.exists():
        return
    started = time.monotonic()
    wanted = dict(re.findall(r"- name: (\S+)\n\s+version: (\S+)", text))
    if reachable("https://galaxy.ansible.com/api/"):
        env = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        run(
            [
                str(VENV / "bin/ansible-galaxy"),
                "collection",
                "install",
                "-r",
                str(COLLECTIONS),
                "-p",
                str(target),
            ],
            env=env,
        )
        source = "Galaxy"
    else:
        _collections_from_wheel(wanted, target)
        source = "PyPI's ansible package (Galaxy does not answer)"
    write_stamp("collections", want)
    say(f"collections ready from {source} ({time.monotonic() - started:.1f} s)")


def _collections_from_wheel(wanted: dict[str, str], target: Path) -> None:
    wheels = CACHE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pip = (
        [sys.executable, "-m", "pip"]
        if shutil.which("pip") or _has_pip()
        else [str(CACHE / "uv/bin/python"), "-m", "pip"]
    )
    run(
        [
            *pip,
            "download",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(wheels),
            ANSIBLE_BUNDLE,
        ]
    )
    wheel = next(wheels.glob("ansible-*.whl"))
    skip = ("/tests/", "/docs/", "/changelogs/", "/.github/", "/.azure-pipelines/")
    roots = tuple(f"ansible_collections/{name.replace('.', '/')}/" for name in wanted)
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            if item.filename.startswith(roots) and not any(part in item.filename for part in skip):
                archive.extract(item, target)
    for name, version in wanted.items():
        manifest = target / "ansible_collections" / name.replace(".", "/") / "MANIFEST.json"
        if not manifest.exists() or f'"version": "{version}"' not in manifest.read_text():
            raise SetupError(
                f"Collection {name} {version} of requirements.yml is not in {ANSIBLE_BUNDLE}; make the two agree."
            )
    shutil.rmtree(wheels)


def _has_pip() -> bool:
    return (
        subprocess.run(
            [sys.executable, "-m", "pip", "--version"], capture_output=True, check=False
        ).returncode
        == 0
    )


def install_packages(wanted: dict[str, str]) -> None:
    """Install the Debian packages of ``wanted`` (command -> package); nothing when the commands exist."""
    missing = sorted({package for command, package in wanted.items() if not _command(command)})
    if missing and _engine_answers():
        missing = [package for package in missing if package != "docker.io"]
    if not missing:
        return
    if os.geteuid() != 0:
        raise SetupError(
            f"The packages {', '.join(missing)} are missing and need root to install; run `sudo make setup`."
        )
    if not shutil.which("apt-get"):
        raise SetupError(f"Install {', '.join(missing)} by hand: this machine has no apt-get.")
    started = time.monotonic()
    say(f"installing Debian packages: {', '.join(missing)} ...")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-q"], env=env)
        run(
            [
                "apt-get",
                "install",
                "-y",
                "-q",
                "--no-install-recommends",
                *missing,
                "iptables",
                "ca-certificates",
            ],
            env=env,
        )
    except SetupError as error:
        raise SetupError(
            f"Debian's package servers did not give {', '.join(missing)}; check the network, then run again. {error}"
        ) from error
    if "nginx" in missing and Path("/run/systemd/system").is_dir():
        # Tests run an nginx of their own; the package's answers on port 80 with its example page.
        run(["systemctl", "disable", "--now", "-q", "nginx.service"])
    say(f"Debian packages ready ({time.monotonic() - started:.1f} s)")


def _command(name: str) -> bool:
    if name.startswith("/"):
        return any(Path("/").glob(name[1:]))
    return shutil.which(name) is not None or Path("/usr/sbin", name).exists()


def _engine_answers() -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0


def main() -> int:
    """Run the steps in order; 1 with one sentence on failure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", action="store_true", help="only the Python environment and the collections")
    parser.add_argument("--tests", action="store_true", help="also what tests run on this machine")
    options = parser.parse_args()
    try:
        if sys.version_info < (3, 11):
            raise SetupError(
                f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; run with PYTHON=python3.11 make ..."
            )
        make_venv()
        make_collections()
        if not options.venv:
            install_packages({**PACKAGES, **TEST_PACKAGES} if options.tests else PACKAGES)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
