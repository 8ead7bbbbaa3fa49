"""Docker's repository is asked over https, and its key has the fingerprint that is expected, before apt sees it."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from openpgp import openpgp_fingerprints
from rendered_variables import render, roles_variables

TASKS = Path(__file__).resolve().parents[3] / "roles/docker/tasks"
FACTS = {"distribution": "Debian", "distribution_version": "12", "distribution_release": "bookworm"}
DOCKERS = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
MIRROR = "https://mirror.example.org/docker"


def resolved(name: str, **variables: object) -> object:
    return render(roles_variables() | {"ansible_facts": FACTS} | variables, [name])[name]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, ""),
        ({"docker_apt_repository_url": MIRROR, "docker_apt_key_fingerprint": "ab" * 20}, ""),
        ({"docker_apt_repository_url": MIRROR, "docker_apt_key_fingerprint": "AB " * 20}, ""),
        ({"docker_apt_repository_url": MIRROR, "docker_apt_key_file": "/x/key.asc"}, ""),
        ({"docker_apt_repository_url": "http://127.0.0.1:8099/linux/debian"}, ""),
        (
            {"docker_apt_repository_url": "http://mirror.example.org/docker"},
            "docker_apt_repository_url (http://mirror",
        ),
        (
            {"docker_apt_repository_url": "http://127.0.0.1.example.org/"},
            "docker_apt_repository_url (http://127",
        ),
        ({"docker_apt_key_url": "http://mirror.example.org/gpg"}, "docker_apt_key_url (http://mirror"),
        ({"docker_apt_key_url": "ftp://mirror.example.org/gpg"}, "docker_apt_key_url (ftp://mirror"),
        ({"docker_apt_repository_url": MIRROR}, "docker_apt_key_fingerprint is needed"),
        (
            {"docker_apt_key_url": "https://download.docker.com.example.org/gpg"},
            "docker_apt_key_fingerprint is needed",
        ),
        ({"docker_apt_key_fingerprint": "0EBFCD88"}, "must be the 40 hexadecimal digits"),
    ],
)
def test_addresses_and_keys_that_cannot_be_trusted_are_refused(
    variables: dict[str, str], sentence: str
) -> None:
    found = resolved("__docker_refusals", **variables)
    assert isinstance(found, list)
    assert (sentence in found[0]) if sentence else found == []


@pytest.mark.parametrize(
    ("variables", "fingerprint"),
    [
        ({}, DOCKERS),
        ({"docker_apt_key_fingerprint": " ".join(["abcd"] * 10)}, "ABCD" * 10),
        ({"docker_apt_key_file": "/x/key.asc"}, ""),
        ({"docker_apt_repository_url": "http://127.0.0.1:8099/x"}, ""),
    ],
)
def test_dockers_own_key_is_pinned_without_being_asked_for(
    variables: dict[str, str], fingerprint: str
) -> None:
    assert resolved("__docker_fingerprint", **variables) == fingerprint


def steps(name: str) -> list[dict[str, object]]:
    tasks = yaml.safe_load((TASKS / name).read_text())
    return [each for task in tasks for each in task.get("block", [task])]


@pytest.mark.parametrize(
    ("name", "used"), [("registry.yml", "apt-get"), ("write_source.yml", "Put it in its place")]
)
def test_a_key_is_compared_wherever_it_is_fetched_before_it_is_used(name: str, used: str) -> None:
    found = steps(name)
    fetched = next(number for number, task in enumerate(found) if "ansible.builtin.get_url" in task)
    compared = next(
        number for number, task in enumerate(found) if task.get("ansible.builtin.include_tasks") == "key.yml"
    )
    uses = next(number for number, task in enumerate(found) if used in str(task) and number > fetched)
    assert fetched < compared < uses
    fetches = [path.name for path in TASKS.glob("*.yml") if "get_url" in path.read_text()]
    assert sorted(fetches) == ["registry.yml", "write_source.yml"]


# --- fingerprints -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fingerprint, as GnuPG prints it, to the armoured key, of keys of several kinds."""
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed here")
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)

    def gpg(*arguments: str) -> str:
        argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout

    found = {}
    for kind in ("ed25519", "rsa2048"):
        gpg("--quick-gen-key", f"{kind} <{kind}@example.org>", kind, "sign", "never")
        lines = gpg("--with-colons", "--list-keys", f"{kind}@example.org").splitlines()
        fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr"))
        gpg("--quick-add-key", fingerprint, kind, "sign", "never")
        found[fingerprint] = gpg("--armor", "--export", fingerprint)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)
    return found


def test_fingerprints_are_those_that_gnupg_prints(keys: dict[str, str]) -> None:
    """Of primary keys alone: a subkey is none."""
    for fingerprint, text in keys.items():
        assert openpgp_fingerprints(text) == [fingerprint]
        assert openpgp_fingerprints("# comment\n" + text.replace("\n", "\r\n")) == [fingerprint]


def test_a_second_key_beside_the_expected_one_is_seen(keys: dict[str, str]) -> None:
    """In a second block, or in the same: apt would take the signatures of both."""
    one, two = keys.items()
    assert openpgp_fingerprints(one[1] + two[1]) == [one[0], two[0]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not found</html>",
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n-----END PGP PUBLIC KEY BLOCK-----",
    ],
)
def test_what_is_no_key_has_no_fingerprint(text: str) -> None:
    assert openpgp_fingerprints(text) == []


def test_a_key_that_is_cut_or_changed_is_another_one(keys: dict[str, str]) -> None:
    fingerprint, text = next(iter(keys.items()))
    head, _, rest = text.partition("\n\n")
    body = rest.partition("\n=")[0]
    raw = bytearray(base64.b64decode(body))
    raw[40] ^= 1

    def armoured(data: bytes) -> str:
        return f"{head}\n\n{base64.b64encode(data).decode()}\n-----END PGP PUBLIC KEY BLOCK-----\n"

    assert openpgp_fingerprints(armoured(bytes(raw))) not in ([], [fingerprint])
    assert openpgp_fingerprints(armoured(bytes(raw[:30]))) == []
