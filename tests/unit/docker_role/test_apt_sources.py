"""Somebody else's source of the same repository is used or named; apt itself says whether a pair of entries breaks it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import apt_sources_info
import pytest
from apt_sources_info import Wanted, decide, normal_uri, parse_list, parse_sources, read_entries

URL, SUITE = "https://download.docker.com/linux/debian", "bookworm"
KEY = "/etc/apt/keyrings/docker.asc"
OWN = f"Types: deb\nURIs: {URL}\nSuites: {SUITE}\nComponents: stable\nSigned-By: {KEY}\n"


def stanza(**changes: str) -> str:
    fields = {"Types": "deb", "URIs": URL, "Suites": SUITE, "Components": "stable", "Signed-By": "/x/other.asc", **changes}
    return "".join(f"{name.replace('_', '-')}: {value}\n" for name, value in fields.items() if value)


class Apt:
    """Settings of apt in a directory, and apt's own opinion of them (it asks no network for that)."""

    def __init__(self, root: Path) -> None:
        self.directory, self.root = root / "etc", root
        self.parts = self.directory / "sources.list.d"
        for path in (self.parts, root / "lists/partial", root / "cache/archives/partial"):
            path.mkdir(parents=True)
        (self.directory / "sources.list").write_text("deb http://192.0.2.1/debian bookworm main\n")
        self.own = self.parts / "docker.sources"

    def works(self) -> bool:
        options = {
            "Dir::Etc::sourcelist": self.directory / "sources.list",
            "Dir::Etc::sourceparts": self.parts,
            "Dir::State::Lists": self.root / "lists",
            "Dir::Cache": self.root / "cache",
        }
        argv = ["apt-get", "-q", "indextargets", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        return subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 0

    def decide(self) -> tuple[str, str, str]:
        own = self.own.is_file() and "# Ansible managed" in self.own.read_text()
        wanted = Wanted(URL, SUITE, "stable", "amd64", KEY, str(self.own))
        decision, problem, adopted = decide(wanted, read_entries(self.directory), own)
        return decision, problem, adopted.path if adopted else ""


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(tmp_path)


LIST = "deb [arch=amd64 signed-by=/x/other.gpg] {url} {suite} {component} # note\n"
CASES = [
    # file, content, decision
    ("docker-ce.sources", stanza(), "adopt"),
    ("docker-ce.sources", "# by hand\n\n" + stanza(URIs=URL + "/", Suites="bullseye bookworm"), "adopt"),
    ("docker.list", LIST.format(url=URL, suite=SUITE, component="stable"), "adopt"),
    ("docker.list", LIST.format(url=URL, suite=SUITE, component="edge stable test"), "adopt"),
    ("docker.list", f"deb {URL} {SUITE} stable\n", "adopt"),
    ("docker.list", f"deb [ trusted=yes ] {URL} {SUITE} stable\n", "adopt"),
    ("docker.list", LIST.format(url=URL.replace("https", "http"), suite=SUITE, component="stable"), "adopt"),
    ("docker.list", LIST.format(url=URL.replace("https://", "tor+https://u:p@"), suite=SUITE, component="stable"), "adopt"),
    ("docker.sources", stanza(), "adopt"),
    ("docker.sources", OWN, "adopt"),
    ("company.sources", stanza(URIs="https://192.0.2.7/debian") + "\n" + stanza(), "adopt"),
    ("docker-ce.sources", stanza(Types="deb-src"), "refuse"),
    ("docker-ce.sources", stanza(Components="test"), "refuse"),
    ("docker-ce.sources", stanza(Architectures="arm64"), "refuse"),
    ("docker.list", f"deb-src [signed-by={KEY} trusted=yes] {URL} {SUITE} stable\n", "refuse"),
    ("docker.sources", stanza(URIs="https://192.0.2.7/docker"), "refuse"),
    ("docker-ce.sources", stanza(Types="deb-src", Signed_By=KEY, **{"Signed-By": ""}), "write"),
    ("docker-ce.sources", stanza(Enabled="no"), "write"),
    ("docker-ce.sources", stanza(Suites="bullseye"), "write"),
    ("docker-ce.sources", stanza(URIs="https://download.docker.com/linux/ubuntu"), "write"),
    ("docker.list", "# " + LIST.format(url=URL, suite=SUITE, component="stable"), "write"),
    ("docker.list.save", LIST.format(url=URL, suite=SUITE, component="stable"), "write"),
    ("docker+ce.list", LIST.format(url=URL, suite=SUITE, component="stable"), "write"),
    ("cd.list", "deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main\n", "write"),
]


@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_each_entry_of_somebody_else_is_used_or_named(apt: Apt, name: str, text: str, expected: str) -> None:
    (apt.parts / name).write_text(text)
    decision, problem, adopted = apt.decide()
    assert decision == expected
    path = str(apt.parts / name)
    assert (path in problem) == (decision == "refuse")
    assert (adopted == path) == (decision == "adopt")


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt itself is the judge")
@pytest.mark.parametrize(("name", "text", "expected"), CASES)
def test_what_would_be_written_never_breaks_apt(apt: Apt, name: str, text: str, expected: str) -> None:
    """And where it is refused or adopted for its key, a second definition would break it, or hide it."""
    (apt.parts / name).write_text(text)
    assert apt.works()
    if expected == "write":
        apt.own.write_text(OWN)
        assert apt.works()
    elif name != "docker.sources" and KEY not in text and text != f"deb {URL} {SUITE} stable\n":  # apt bears that one
        apt.own.write_text(OWN)
        assert not apt.works()


def test_two_entries_that_contradict_each_other_are_both_named(apt: Apt) -> None:
    (apt.parts / "a.list").write_text(LIST.format(url=URL, suite=SUITE, component="stable"))
    (apt.parts / "b.sources").write_text("\n" + stanza())
    assert not apt.works()
    decision, problem, _ = apt.decide()
    assert decision == "refuse"
    assert f"{apt.parts / 'a.list'}, line 1 (Signed-By /x/other.gpg)" in problem
    assert f"{apt.parts / 'b.sources'}, line 2 (Signed-By /x/other.asc)" in problem


def test_our_own_file_is_written_again_and_gives_way_to_an_equivalent_entry(apt: Apt) -> None:
    apt.own.write_text("#\n# Ansible managed\n#\n" + OWN.replace(SUITE, "bullseye"))
    assert apt.decide()[0] == "write"
    apt.own.write_text("#\n# Ansible managed\n#\n" + OWN)
    assert apt.decide()[0] == "write"
    (apt.parts / "docker-ce.sources").write_text(stanza())
    assert apt.decide()[::2] == ("adopt", str(apt.parts / "docker-ce.sources"))


def test_a_key_as_text_is_kept_for_the_probe() -> None:
    text = "Types: deb\nURIs: https://a/b\nSuites: c\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n"
    entry = parse_sources("x", text)[0]
    assert entry.signed_by == "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ=="
    assert entry.key == "a key as text"


def test_fields_of_a_stanza_are_read_as_apt_does() -> None:
    text = "# c\nTYPES: deb deb-src\n# in between\nuris: https://A/b/\n https://c//d\nSuites: s\n\n\nTypes: deb\nURIs: e\nSuites: f/\n"
    first, second = parse_sources("x", text)
    assert (first.line, first.types, first.uris) == (2, ("deb", "deb-src"), ("a/b", "c/d"))
    assert (second.line, second.uris, second.suites, second.components) == (9, ("e",), ("f/",), ())
    assert parse_list("x", "deb [arch=amd64] https://a\nnonsense\ndeb\n") == []
    assert [normal_uri(uri) for uri in ("https://h:443/a/", "http://H/a", "https://h:8/a", "https://[x/a")] == [
        "h/a",
        "h/a",
        "h:8/a",
        "https://[x/a",
    ]


def test_the_module_says_all_of_it(run_host_module, apt: Apt) -> None:
    place = {"url": URL, "suite": SUITE, "component": "stable", "architecture": "amd64", "signed_by": KEY}
    place |= {"own_file": str(apt.own), "directory": str(apt.directory)}
    result = run_host_module("apt_sources_info", **place)
    assert (result["decision"], result["own"], result["key_users"], result["adopted"]) == ("write", False, [], {})
    (apt.parts / "docker-ce.sources").write_text(stanza(**{"Signed-By": f"/a {KEY}"}))
    result = run_host_module("apt_sources_info", **place)
    assert result["adopted"]["signed_by"] == f"/a,{KEY}"
    assert result["key_users"] == [str(apt.parts / "docker-ce.sources")]
    assert apt_sources_info.files(Path("/nonexistent")) == []
