"""One way to call PM2, whoever calls: the switch, the parallel run, the monitoring, phase 0.

The host's runtime as nvm has it: ``pm2`` is a Node.js script in a version's own prefix, and ``node`` is on nobody's
PATH. The node here is a shell script that records how it was called.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core import pm2
from glitchtip_core.errors import CoreError
from glitchtip_core.pm2 import Access
from glitchtip_core.process import Completed, run
from glitchtip_cutover.config import Pm2Settings
from glitchtip_cutover.pm2 import Pm2, check_node
from glitchtip_ops.local_test.command import node_of
from glitchtip_ops.monitor import MonitorConfig, check_pm2, guarded
from glitchtip_ops.soak import sampler
from glitchtip_ops.soak.config import SoakConfig

ME = getpass.getuser()
LISTED = '[{"name":"api","pid":7,"pm_id":0,"pm2_env":{"status":"online","restart_time":1}}]'


class Runtime:
    """nvm's layout below ``root``, and a PM2 whose daemon listens."""

    def __init__(self, root: Path) -> None:
        self.root, self.home, self.calls = root, root / "home", root / "calls"
        self.prefix = root / "nvm/versions/node/v20.11.0"
        self.node, self.pm2 = self.prefix / "bin/node", self.prefix / "bin/pm2"
        script = self.prefix / "lib/node_modules/pm2/bin/pm2"
        for directory in (self.node.parent, script.parent, self.home):
            directory.mkdir(parents=True)
        script.write_text("#!/usr/bin/env node\nrequire('../lib/binaries/CLI.js');\n")
        script.chmod(0o755)
        self.pm2.symlink_to("../lib/node_modules/pm2/bin/pm2")
        self.calls.touch(0o666)
        self.calls.chmod(0o666)
        self.write_node(f"printf '%s' '{LISTED}'")

    def write_node(self, then: str) -> None:
        self.node.write_text(
            '#!/bin/sh\n[ "$1" = --version ] && { echo v20.11.0; exit; }\n'
            f'{{ echo "args $*"; echo "uid $(id -u)"; env; }} >> {self.calls}\n{then}\n'
        )
        self.node.chmod(0o755)

    def called(self) -> dict[str, str]:
        """How node was called last; forgotten then."""
        lines = self.calls.read_text().splitlines()
        self.calls.write_text("")
        own = {line.split("=", 1)[0]: line.split("=", 1)[1] for line in lines if "=" in line}
        own = {name: value for name, value in own.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")}
        return {"args": lines[0].removeprefix("args "), "uid": lines[1].removeprefix("uid "), **own}


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """Nothing of ours is on the PATH of whoever calls, as of a unit of systemd; a canary is in its environment."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("SENTRY_DSN", "canary")
    made = Runtime(tmp_path)
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.bind(str(made.home / "rpc.sock"))
        daemon.listen(32)
        yield made


def soak(runtime: Runtime, node: str) -> Any:
    config = SoakConfig(pm2_user=ME, pm2_home=str(runtime.home), pm2_binary=str(runtime.pm2), pm2_node=node)
    plan: Any = type("Plan", (), {"pm2_services": ("api",)})
    stack: Any = None
    return [each["name"] for each in sampler.Sampler(config, stack, lambda: stack)._pm2(plan)]


def monitor(runtime: Runtime, node: str) -> Any:
    config = MonitorConfig(
        pm2_user=ME, pm2_home=str(runtime.home), pm2_binary=str(runtime.pm2), pm2_node=node, pm2_services=("api",)
    )
    check = guarded("pm2", lambda: check_pm2(config))
    return ["api"] if check.ok else check.detail


def cutover(runtime: Runtime, node: str) -> Any:
    settings = Pm2Settings(ME, runtime.home, runtime.pm2, Path(node) if node else None)
    return [each.name for each in Pm2(settings).processes()]


CALLERS = [soak, monitor, cutover]


@pytest.fixture
def phase0(run_host_module: Any) -> Callable[[Runtime, str], Any]:
    def ask(runtime: Runtime, node: str) -> Any:
        given = {"node": node} if node else {}
        place = {"user": ME, "home": str(runtime.home), "binary": str(runtime.pm2)}
        result = run_host_module("pm2_info", **place, **given)
        return result["msg"] if result["failed"] else [each["name"] for each in result["processes"]]

    return ask


@pytest.mark.parametrize("given", [False, True])
def test_all_call_it_in_the_same_way(runtime: Runtime, phase0: Any, given: bool) -> None:
    """Same program, arguments, user and environment; so what phase 0 can do, the later phases can."""
    node = str(runtime.node) if given else ""
    seen = []
    for caller in (*CALLERS, phase0):
        assert caller(runtime, node) == ["api"], caller
        seen.append(runtime.called())
    assert all(each == seen[0] for each in seen)
    assert seen[0] == {
        "args": f"{runtime.pm2} jlist",
        "uid": str(os.geteuid()),
        "HOME": pwd.getpwnam(ME).pw_dir,
        "PM2_HOME": str(runtime.home),
        "PM2_NODE_OPTIONS": "--no-new-daemon-is-wanted",
        "PATH": f"{runtime.node.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def test_all_give_the_same_reason_when_it_fails(runtime: Runtime, phase0: Any) -> None:
    """What PM2 itself complains about is in it, without credentials, and never what it printed as a list."""
    runtime.write_node("echo secret-of-a-service; echo 'Error: http://key@192.0.2.1/1 \x1b[31mgone' >&2; exit 7")
    expected = "pm2 jlist failed with exit code 7: Error: http://***@192.0.2.1/1  [31mgone"
    for caller in (soak, cutover):
        with pytest.raises(Exception, match="exit code 7") as caught:
            caller(runtime, "")
        assert str(caught.value) == expected
    assert expected in monitor(runtime, "")
    assert phase0(runtime, "") == expected + "."


def test_phase_0_reports_the_node_and_its_version_also_when_pm2_fails(
    runtime: Runtime, run_host_module: Any
) -> None:
    place = {"user": ME, "home": str(runtime.home), "binary": str(runtime.pm2)}
    result = run_host_module("pm2_info", **place)
    assert (result["node"], result["node_version"]) == (str(runtime.node), "v20.11.0")
    runtime.write_node("exit 1")
    result = run_host_module("pm2_info", **place)
    assert (result["failed"], result["node_version"]) == (True, "v20.11.0")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another user")
def test_phase_0_asks_node_as_the_user_of_pm2(runtime: Runtime, run_host_module: Any) -> None:
    """A program in another user's directory is never run as root."""
    for directory in (runtime.root, *runtime.root.parents):
        if directory.stat().st_uid == 0 and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    who = runtime.root / "who"
    who.touch()
    who.chmod(0o666)
    runtime.node.write_text(f"#!/bin/sh\nid -un >> {who}\necho v20.1.0\n")
    result = run_host_module("pm2_info", user="nobody", home=str(runtime.root / "none"), binary=str(runtime.pm2))
    assert (result["failed"], result["node_version"], who.read_text()) == (False, "v20.1.0", "nobody\n")


# --- where node is ----------------------------------------------------------------------------------------


def access(binary: Path, home: Path) -> Access:
    return Access(ME, binary, home)


def make_program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_node_is_found_by_a_link_into_a_prefix(runtime: Runtime) -> None:
    """/usr/local/bin/pm2 -> ~/.nvm/.../bin/pm2: an unrelated node beside the link does not count."""
    link = runtime.root / "local/bin/pm2"
    make_program(link.parent / "node")
    link.symlink_to(runtime.pm2)
    assert pm2.find_node(access(link, runtime.home)) == runtime.node


def test_node_is_found_beside_pm2_that_has_no_prefix_of_its_own(tmp_path: Path) -> None:
    binary = tmp_path / "tools/pm2"
    (binary.parent).mkdir()
    binary.symlink_to(make_program(tmp_path / "store/v5/node_modules/pm2/bin/pm2"))
    node = make_program(binary.parent / "node")
    assert pm2.find_node(access(binary, tmp_path)) == node


def test_node_is_found_by_what_the_daemon_was_started_with(tmp_path: Path) -> None:
    """PM2 as a dependency of the product, node in a place of its own: /proc/<pid>/exe of who listens."""
    node = tmp_path / "opt/node-20/bin/node"
    node.parent.mkdir(parents=True)
    shutil.copy(os.path.realpath("/usr/bin/python3"), node)
    home = tmp_path / "home"
    home.mkdir()
    binary = make_program(tmp_path / "app/node_modules/pm2/bin/pm2")
    code = (
        "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)"
    )
    daemon = subprocess.Popen([node, "-I", "-c", code, str(home / "rpc.sock")])
    try:
        for _ in range(200):
            if pm2.listener(home):
                break
            time.sleep(0.05)
        assert pm2.find_node(access(binary, home)) == node
        node.unlink()  # an upgrade of Node.js removed what the daemon still runs with
        assert pm2.find_node(access(binary, home)) != node
    finally:
        daemon.kill()
        daemon.wait()


def test_without_any_node_the_sentence_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pm2, "_SYSTEM_NODES", (tmp_path / "none",))
    binary = make_program(tmp_path / "pm2", "#!/usr/bin/env node\n")
    place = access(binary, tmp_path)
    with pytest.raises(CoreError, match=r"there is no Node\.js beside .*: give the path of the node that PM2 of user"):
        pm2.find_node(place)
    with pytest.raises(CoreError, match=r"there is no Node\.js beside"):
        pm2.command(place)
    with pytest.raises(Exception, match=r"there is no Node\.js beside"):
        check_node(Pm2Settings(ME, tmp_path, binary, None))
    options: Any = type("Options", (), {"node": "", "user": ME, "pm2": str(binary)})
    with pytest.raises(Exception, match=r"there is no Node\.js beside"):
        node_of(options)


def test_phase_1_uses_the_node_of_pm2_too(runtime: Runtime) -> None:
    options: Any = type("Options", (), {"node": "", "user": None, "pm2": str(runtime.pm2)})
    assert node_of(options) == str(runtime.node)
    options.node = "/usr/bin/node"
    assert node_of(options) == "/usr/bin/node"


def test_a_shell_script_is_run_by_itself_with_both_directories_on_its_path(tmp_path: Path) -> None:
    """asdf, nodenv and wrappers by hand."""
    shim = make_program(tmp_path / "shims/pm2", "#!/bin/sh\nexec node /x \"$@\"\n")
    node = make_program(tmp_path / "node/bin/node")
    place = Access(ME, shim, tmp_path, node)
    assert pm2.command(place) == [shim]
    assert pm2.environment(place)["PATH"].split(":")[:2] == [str(node.parent), str(shim.parent)]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """The path lies in another user's directory: a named pipe there would hold root for ever."""
    pipe = tmp_path / "pm2"
    os.mkfifo(pipe)
    with pytest.raises(CoreError, match=r"pm2 is not at .* is not a regular file"):
        pm2.command(access(pipe, tmp_path))


def test_the_home_is_that_of_the_user_database() -> None:
    """Not /home/<user>: accounts of services live in /srv or /var/lib."""
    account = pwd.getpwnam("www-data") if "www-data" in {each.pw_name for each in pwd.getpwall()} else pwd.getpwnam(ME)
    assert Access.of(account.pw_name, "", "/x/pm2", "").pm2_home() == Path(account.pw_dir) / ".pm2"
    assert Pm2(Pm2Settings(account.pw_name, None, Path("/x"), None)).home == Path(account.pw_dir) / ".pm2"
    assert not Pm2(Pm2Settings("nobody-such", None, Path("/x"), None)).running
    with pytest.raises(CoreError, match="there is no user nobody-such on this host"):
        Access.of("nobody-such", "", "/x/pm2", "").pm2_home()


# --- the runner -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [({"A": "\ud800"}, "cannot be run: UnicodeEncodeError"), ({"A": "x\0y"}, "cannot be run: ValueError")],
)
def test_an_environment_that_no_process_can_have_is_an_error_with_a_sentence(
    environment: dict[str, str], sentence: str
) -> None:
    with pytest.raises(CoreError, match=sentence):
        run(["/bin/true"], environment=environment, timeout=5)


def test_a_complaint_is_one_printable_line() -> None:
    assert Completed(1, "out", "\n\n \x07 first\nsecond").complaint == "first"
    assert Completed(1, "secret", "").complaint == ""
    assert len(Completed(1, "", "x" * 999).complaint) == 200
