"""Role docker and the package sources of a host, with the real apt and a signed repository.

The role's own tasks run in a mount namespace, in which /etc/apt and apt's state are directories of the test.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.quick import ANSIBLE_PLAYBOOK, ROOT, ansible_variables

ROLE = ROOT / "roles" / "docker"
CHECKS = (
    "Read the architecture of the packages",
    "Read who else defines Docker's repository",
    "Refuse a repository that others define in another way",
    "Ask apt whether it can read its sources",
    "Refuse an apt that cannot read its sources",
)
INSIDE = """
set -e
mount --bind "$1/apt" /etc/apt
mount --bind "$1/lib" /var/lib/apt
mount --bind "$1/cache" /var/cache/apt
shift
exec "$@"
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(each) is None for each in ("apt-get", "gpg", "unshare")),
    reason="needs root, apt, gpg and unshare",
)


def run(*argv: str | Path, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in argv], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=check,
    )  # fmt: skip


def make_key(home: Path, public: Path) -> None:
    home.mkdir(mode=0o700)
    options = ["--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Test <root@example.org>", "ed25519", "sign", "never"]
    run("gpg", *options, GNUPGHOME=str(home))
    public.write_text(run("gpg", "--batch", "--armor", "--export", GNUPGHOME=str(home)).stdout)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address, directory of keys): an empty repository of suite ``trixie`` that ``good.asc`` signed and ``bad.asc`` did not."""
    top = tmp_path_factory.mktemp("repository")
    make_key(top / "good", top / "good.asc")
    make_key(top / "bad", top / "bad.asc")
    suite = top / "www/debian/dists/trixie"
    index = suite / "stable" / f"binary-{run('dpkg', '--print-architecture').stdout.strip()}" / "Packages"
    index.parent.mkdir(parents=True)
    index.write_bytes(b"")
    digest = hashlib.sha256(b"").hexdigest()
    (suite / "Release").write_text(
        "Origin: Docker\nSuite: trixie\nCodename: trixie\nComponents: stable\n"
        f"Architectures: {index.parent.name.removeprefix('binary-')}\nDate: {run('date', '-Ru').stdout.strip()}\n"
        f"SHA256:\n {digest} 0 {index.relative_to(suite)}\n"
    )
    run("gpg", "--batch", "--clearsign", "-o", suite / "InRelease", suite / "Release", GNUPGHOME=str(top / "good"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(top / "www"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/debian", top
        server.shutdown()
    for home in ("good", "bad"):
        run("gpgconf", "--kill", "all", check=False, GNUPGHOME=str(top / home))


@dataclass
class Host:
    """Directories in the place of /etc/apt and of apt's state."""

    root: Path
    url: str
    keys: Path

    def __post_init__(self) -> None:
        for name in ("sources.list.d", "apt.conf.d", "preferences.d", "trusted.gpg.d", "keyrings"):
            (self.root / "apt" / name).mkdir(parents=True, exist_ok=True)
        for name in ("lib/lists/partial", "cache/archives/partial"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        (self.root / "apt/apt.conf.d/99test").write_text('APT::Sandbox::User "root";\n')
        shutil.copy(self.keys / "good.asc", self.root / "apt/keyrings/theirs.asc")

    @property
    def parts(self) -> Path:
        return self.root / "apt/sources.list.d"

    @property
    def own(self) -> Path:
        return self.parts / "docker.sources"

    @property
    def key(self) -> Path:
        return self.root / "apt/keyrings/docker.asc"

    def theirs(self, **changes: str) -> str:
        fields = {"Types": "deb", "URIs": self.url, "Suites": "trixie", "Components": "stable", "Signed-By": "/etc/apt/keyrings/theirs.asc"}
        return "".join(f"{name}: {value}\n" for name, value in {**fields, **changes}.items())

    def inside(self, *argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(
            "unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh", self.root, *argv, check=False, **environment
        )

    def apt_works(self) -> bool:
        return self.inside("apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any").returncode == 0

    def role(self, key: str = "good.asc", *, installs: bool = False, **variables: Any) -> tuple[int, str]:
        """Run the role's tasks about sources: (changed tasks, "") or (-1, the message of the failure).

        ``installs``: packages are missing, so the repository is asked in a scratch directory first.
        """
        tasks = [task for task in yaml.safe_load((ROLE / "tasks/validate.yml").read_text()) if task["name"] in CHECKS]
        assert [task["name"] for task in tasks] == list(CHECKS)
        first = yaml.safe_load((ROLE / "tasks/configure.yml").read_text())[0]
        first["ansible.builtin.include_tasks"] = str(ROLE / "tasks" / first["ansible.builtin.include_tasks"])
        probe = [{"ansible.builtin.include_tasks": str(ROLE / "tasks/registry.yml")}] if installs else []
        given = {
            "docker_apt_repository_url": self.url,
            "docker_apt_suite": "trixie",
            "docker_apt_key_file": str(self.keys / key),
            "role_path": str(ROLE),
            **variables,
        }
        play = {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "vars": {"ansible_facts": {"distribution": "Debian", "distribution_version": "13", "distribution_release": "trixie"}},
            "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
            "tasks": [*tasks, *probe, first],
        }
        (self.root / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
        (self.root / "given.json").write_text(json.dumps(given))
        (self.root / "templates").mkdir(exist_ok=True)
        shutil.copy(ROLE / "templates/docker.sources.j2", self.root / "templates")
        done = self.inside(
            ANSIBLE_PLAYBOOK, "-i", "localhost,", "-e", f"@{self.root / 'given.json'}",
            "-e", f"ansible_python_interpreter={sys.executable}", self.root / "play.yml",
            **ansible_variables(ANSIBLE_STDOUT_CALLBACK="json"),
        )  # fmt: skip
        document = json.loads(done.stdout[done.stdout.index("{") :])
        if done.returncode:
            results = [task["hosts"]["localhost"] for task in document["plays"][0]["tasks"] if "localhost" in task["hosts"]]
            failed = [each for each in results if each.get("failed") and not each.get("skipped")]
            return -1, " ".join(str(failed[-1]["msg"]).split())
        return int(document["stats"]["localhost"]["changed"]), ""


@pytest.fixture
def host(tmp_path: Path, repository: tuple[str, Path]) -> Host:
    return Host(tmp_path, *repository)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, repository: tuple[str, Path]) -> tuple[Path, tuple[int, str]]:
    """Directories of a host on which the role ran once, and what that run gave; nobody changes them."""
    host = Host(tmp_path_factory.mktemp("first-run"), *repository)
    return host.root, host.role()


@pytest.fixture
def written(tmp_path: Path, first_run: tuple[Path, tuple[int, str]], repository: tuple[str, Path]) -> Host:
    """A host of its own in the state after the first run of the role."""
    root, (changes, message) = first_run
    assert changes > 0, message
    shutil.copytree(root, tmp_path / "host", symlinks=True)
    host = Host(tmp_path / "host", *repository)
    assert host.own.is_file()
    assert host.key.read_bytes() == (host.keys / "good.asc").read_bytes()
    return host


def test_our_own_source_is_written_once_and_goes_with_the_distributions_packages(written: Host) -> None:
    host = written
    assert host.apt_works()
    assert host.role() == (0, "")
    assert host.role(docker_source="distro")[0] == 2
    assert not host.own.exists()
    assert not host.key.exists()


def test_a_source_of_somebody_else_with_another_key_is_used_and_not_touched(host: Host) -> None:
    """Every apt command of the host failed afterwards, with a green play."""
    (host.parts / "docker-ce.sources").write_text(host.theirs())
    assert host.role() == (0, "")
    assert (host.parts / "docker-ce.sources").read_text() == host.theirs()
    assert not host.own.exists()
    assert host.apt_works()


def test_packages_are_asked_for_with_the_key_that_somebody_else_names(host: Host) -> None:
    (host.parts / "docker-ce.sources").write_text(host.theirs())
    assert host.role(key="bad.asc", installs=True) == (0, "")  # ours is not used
    shutil.copy(host.keys / "bad.asc", host.root / "apt/keyrings/theirs.asc")
    code, message = host.role(installs=True)
    assert code == -1
    assert f"{host.url} (suite trixie) does not answer or is not signed by the key that /etc/apt/sources.list.d/docker-ce.sources" in message
    assert message.endswith("Nothing was changed.")
    assert not host.own.exists()


def test_our_own_source_gives_way_to_one_that_came_later(written: Host) -> None:
    host = written
    (host.parts / "docker.list").write_text(f"deb [signed-by=/etc/apt/keyrings/theirs.asc] {host.url} trixie stable\n")
    assert not host.apt_works()
    assert host.role()[0] == 2
    assert host.apt_works()


def test_one_that_would_contradict_ours_is_named_before_anything_is_written(host: Host) -> None:
    (host.parts / "docker-ce.sources").write_text(host.theirs(Components="test"))
    code, message = host.role()
    assert code == -1
    assert message.startswith(f"/etc/apt/sources.list.d/docker-ce.sources, line 1 defines {host.url} trixie")
    assert message.endswith("Nothing was changed.")
    assert not host.own.exists()
    assert not host.key.exists()


def test_a_source_with_which_apt_fails_is_removed_again(host: Host) -> None:
    code, message = host.role(key="bad.asc")
    assert code == -1
    assert message.startswith('/etc/apt/sources.list.d/docker.sources was removed again, because "apt-get update" fails with it:')
    assert "NO_PUBKEY" in message
    assert not host.own.exists()
    assert not host.key.exists()
    assert host.apt_works()


def test_what_was_there_before_comes_back(written: Host) -> None:
    host = written
    before = host.own.read_text(), host.key.read_text()
    assert host.role(key="bad.asc")[0] == -1
    assert (host.own.read_text(), host.key.read_text()) == before
    # apt reads them as a user of its own.
    assert [path.stat().st_mode & 0o777 for path in (host.own, host.key)] == [0o644, 0o644]
    assert host.apt_works()


def test_a_list_that_is_broken_for_other_reasons_is_not_blamed_on_ours(host: Host) -> None:
    (host.parts / "gone.list").write_text(f"deb [trusted=yes] {host.url}-gone trixie main\n")
    assert not host.apt_works()
    assert host.role()[0] > 0
    assert host.own.is_file()


def test_an_apt_that_cannot_read_its_sources_is_refused(host: Host) -> None:
    (host.parts / "half.list").write_text("deb http://192.0.2.1/debian\n")
    code, message = host.role()
    assert code == -1
    assert "cannot read its package sources: Malformed entry 1 in list file /etc/apt/sources.list.d/half.list" in message
    assert not host.own.exists()


def test_a_key_file_that_others_use_stays_as_it_is(host: Host) -> None:
    """The name is the one of Docker's own instructions."""
    shutil.copy(host.keys / "good.asc", host.key)
    (host.parts / "other.sources").write_text(host.theirs(Suites="bookworm", Enabled="yes", **{"Signed-By": "/etc/apt/keyrings/docker.asc"}))
    assert host.role(key="bad.asc")[0] > 0
    assert host.key.read_text() == (host.keys / "good.asc").read_text()
