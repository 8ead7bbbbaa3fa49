"""Every systemd unit of the product gives up what it does not need; one that is root says why."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UNITS = sorted((ROOT / "roles").glob("*/templates/*.service.j2"))
#: Of every unit, also of root's: nothing of the product changes the kernel, its log, the host's name or its scheduling.
MINIMUM = {
    "LockPersonality": "true",
    "ProtectHostname": "true",
    "ProtectKernelLogs": "true",
    "ProtectKernelModules": "true",
    "RestrictRealtime": "true",
    "SystemCallArchitectures": "native",
}
#: Of a unit with a user of its own, besides.
OWN_USER = {
    "NoNewPrivileges": "true",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "true",
    "PrivateTmp": "true",
    "PrivateDevices": "true",
    "ProtectClock": "true",
    "ProtectControlGroups": "true",
    "ProtectKernelTunables": "true",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "RestrictNamespaces": "true",
    "RestrictSUIDSGID": "true",
}
#: Exposure of a unit with a user of its own at most, as systemd-analyze counts it from 0 to 10, times ten.
MOST_EXPOSED = 40
REASON = "# Root, because "


def service_lines(text: str) -> list[str]:
    """The lines of the section [Service]."""
    _, _, rest = text.partition("\n[Service]\n")
    return rest.partition("\n[Install]")[0].splitlines()


def settings_of(text: str) -> dict[str, str]:
    """The settings of the section [Service]."""
    return {
        name: value
        for name, separator, value in (line.partition("=") for line in service_lines(text))
        if separator and name.isalpha()
    }


def missing(text: str) -> list[str]:
    """What a unit lacks, each as the line that it should have."""
    found = settings_of(text)
    wanted = MINIMUM | (OWN_USER if found.get("User") else {})
    if "CAP_SYS_MODULE" in found.get("CapabilityBoundingSet", "").split():
        wanted = {name: value for name, value in wanted.items() if name != "ProtectKernelModules"}
    lines = [f"{name}={value}" for name, value in wanted.items() if found.get(name) != value]
    if not found.get("User") and not any(line.startswith(REASON) for line in service_lines(text)):
        lines.append(REASON + "...")
    return lines


def rendered(text: str) -> str:
    """The unit with something in place of each template, as far as its sandbox depends on it."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("{%", "{{"))]
    plain = re.sub(r"\{\{.*?\}\}", "x", "\n".join(lines), flags=re.DOTALL)
    plain = re.sub(r"^Exec(\w+)=(.*\\\n)*.*$", r"Exec\1=/bin/true", plain, flags=re.MULTILINE)
    return re.sub(r"^(ReadWritePaths|ConditionPathExists)=.*$", r"\1=/var", plain, flags=re.MULTILINE) + "\n"


def exposure(text: str, directory: Path) -> int:
    """What systemd-analyze counts, times ten."""
    path = directory / "subject.service"
    path.write_text(rendered(text))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for subject.service: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    return round(float(found[1]) * 10)


def test_the_units_are_found() -> None:
    assert len(UNITS) >= 9
    assert [path.name for path in UNITS if settings_of(path.read_text()).get("User")] == [
        "glitchtip-mirror.service.j2",
        "glitchtip-tunnel.service.j2",
    ]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_gives_up_what_it_does_not_need(path: Path) -> None:
    assert missing(path.read_text()) == []


@pytest.mark.parametrize("name", [*MINIMUM, *OWN_USER])
def test_a_setting_that_is_missing_is_noticed(name: str) -> None:
    """The control of the test above."""
    text = next(path.read_text() for path in UNITS if path.name == "glitchtip-tunnel.service.j2")
    without = re.sub(rf"^{name}=.*\n", "", text, flags=re.MULTILINE)
    assert [line.partition("=")[0] for line in missing(without)] == [name]


def test_root_without_a_reason_is_noticed() -> None:
    text = next(path.read_text() for path in UNITS if path.name == "glitchtip-backup.service.j2")
    assert missing(text.replace(REASON, "# ")) == [REASON + "..."]


def test_only_a_unit_that_loads_modules_may_do_without_their_protection() -> None:
    text = next(path.read_text() for path in UNITS if path.name == "docker-loopback.service.j2")
    assert missing(text.replace(" CAP_SYS_MODULE", "")) == ["ProtectKernelModules=true"]


has_offline = shutil.which("systemd-analyze") is not None


@pytest.mark.skipif(not has_offline, reason="systemd-analyze is not installed here")
@pytest.mark.parametrize(
    "path", [path for path in UNITS if settings_of(path.read_text()).get("User")], ids=lambda path: path.name
)
def test_a_unit_with_its_own_user_is_hardly_exposed(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    assert exposure(text, tmp_path) <= MOST_EXPOSED
    bare = "\n".join(line for line in text.splitlines() if line.partition("=")[0] not in OWN_USER) + "\n"
    assert exposure(bare, tmp_path) > MOST_EXPOSED  # the control
