"""What replaces the packages of the other source is said; what others need is not taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).resolve().parents[3] / "roles" / "docker"


def evaluate(expression: str, **variables: Any) -> Any:
    loader = DataLoader()
    given = {
        **loader.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True),
        **loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True),
        "ansible_facts": {"distribution": "Debian", "distribution_version": "13", "distribution_release": "trixie"},
        "__docker_apparmor": {"rc": 1},
        **variables,
    }
    return Templar(loader=loader, variables=given).template(trust_as_template(expression))


def installed(*names: str) -> dict[str, Any]:
    return {"stdout_lines": [f"{name}:amd64 installed" for name in names]}


@pytest.mark.parametrize(
    ("source", "names", "sentence", "more"),
    [
        (
            "official",
            ["docker.io", "docker-buildx", "containerd", "runc"],
            "containerd by containerd.io, docker-buildx by docker-buildx-plugin, docker.io by docker-ce, runc by containerd.io",
            ["docker-buildx-plugin"],
        ),
        ("official", ["podman-docker"], "podman-docker without a counterpart", []),
        (
            "distro",
            ["docker-ce", "docker-ce-cli", "docker-buildx-plugin", "docker-compose-plugin"],
            "docker-buildx-plugin by docker-buildx, docker-ce by docker.io, docker-ce-cli by docker-cli, docker-compose-plugin by docker-compose",
            ["docker-buildx"],
        ),
        ("official", ["docker-ce", "curl"], "", []),
    ],
)
def test_each_package_that_goes_has_a_counterpart_or_is_said_to_have_none(
    source: str, names: list[str], sentence: str, more: list[str]
) -> None:
    given = {"docker_source": source, "__docker_dpkg": installed(*names)}
    assert (evaluate("{{ __docker_replacements }}", **given) or "") == sentence
    assert evaluate("{{ __docker_counterpart_packages }}", **given) == more
    assert set(more) <= set(evaluate("{{ __docker_missing }}", **given))


def test_every_conflicting_package_is_thought_of() -> None:
    """A new one in the list needs a counterpart, or a word that there is none."""
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    without = {"docker-doc", "podman-docker", "docker-ce-rootless-extras"}
    for source, names in variables["__docker_conflicts"].items():
        assert set(names) - set(variables["__docker_counterparts"][source]) <= without


def refusal(**simulation: Any) -> tuple[bool, str]:
    """(whether the role goes on, what it says else) after apt's simulation."""
    block = yaml.safe_load((ROLE / "tasks/install.yml").read_text())[1]["block"]
    task = next(each for each in block if each["name"] == "Refuse to take packages away that nobody named")
    given = {
        "docker_source": "official",
        "__docker_dpkg": installed("docker.io", "runc"),
        "__docker_simulation": {"changed": False, "rc": 0, "stdout": "", "stderr_lines": [], **simulation},
    }
    loader_vars = {name: trust_as_template(value) for name, value in task["vars"].items()}
    good = evaluate("{{ " + task["ansible.builtin.assert"]["that"] + " }}", **given, **loader_vars)
    return bool(good), " ".join(str(evaluate(task["ansible.builtin.assert"]["fail_msg"], **given, **loader_vars)).split())


GONE = "Inst docker-ce (5:28 Docker [amd64])\nRemv docker.io [20.10]\nRemv runc:amd64 [1.1]\n"


def test_only_what_was_named_may_go() -> None:
    assert refusal(stdout=GONE)[0] is True
    good, message = refusal(stdout=GONE + "Remv podman [4.3.1]\nRemv kubelet [1.29]\n")
    assert not good
    assert message.startswith("docker.io, runc cannot be replaced: kubelet, podman would be removed too, which need them. Keep that engine")
    assert "docker_source: distro" in message


def test_what_apt_refuses_is_said_in_its_words() -> None:
    good, message = refusal(rc=100, stderr_lines=["W: noise", "E: Held packages were changed"])
    assert not good
    assert "cannot be replaced: Held packages were changed. Keep that engine" in message
