"""Keys of daemon.json that a unit's command line sets too keep dockerd from starting: they are named beforehand."""

from __future__ import annotations

import pytest
from dockerd import dockerd_conflicts, dockerd_keys_of_command

SHOW = "{{ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd {} ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; status=0/0 }}"


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        ("-H fd:// --containerd=/run/containerd/containerd.sock", ["containerd", "hosts"]),
        ("--log-driver=journald --log-opt tag=x --log-opt=max-size=1g", ["log-driver", "log-opts"]),
        ("--live-restore -D -l warn -Hfd://", ["debug", "hosts", "live-restore", "log-level"]),
        ("--config-file /srv/daemon.json --insecure-registry=192.0.2.1:5000", ["config-file", "insecure-registries"]),
        ("--label 'a b=c' --dns 192.0.2.1", ["dns", "labels"]),
        ("--label 'not closed", ["labels"]),
        ("", []),
    ],
)
def test_flags_are_known_by_their_key(arguments: str, keys: list[str]) -> None:
    assert dockerd_keys_of_command(SHOW.format(arguments)) == keys


def test_only_keys_that_are_wanted_conflict() -> None:
    show = SHOW.format("-H fd:// --log-driver=journald")
    assert dockerd_conflicts(show, {"log-driver": "json-file", "live-restore": True}) == ["log-driver"]
    assert dockerd_conflicts(show, {"hosts": ["fd://"]}) == ["hosts"]
    assert dockerd_conflicts("", {"hosts": []}) == []
    assert dockerd_conflicts("[no such unit]", {"hosts": []}) == []
