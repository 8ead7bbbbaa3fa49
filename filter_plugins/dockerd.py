"""Filter for role docker: settings that the unit's command line already gives to dockerd."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

#: Names of options where the key in daemon.json is another one (dockerd 28; ``-H`` and ``--host`` are ``hosts``, and so on).
_KEYS = {
    "H": "hosts",
    "host": "hosts",
    "D": "debug",
    "l": "log-level",
    "g": "data-root",
    "graph": "data-root",
    "s": "storage-driver",
    "b": "bridge",
    "G": "group",
    "p": "pidfile",
    "log-opt": "log-opts",
    "label": "labels",
    "storage-opt": "storage-opts",
    "exec-opt": "exec-opts",
    "dns-opt": "dns-opts",
    "insecure-registry": "insecure-registries",
    "registry-mirror": "registry-mirrors",
    "authorization-plugin": "authorization-plugins",
    "add-runtime": "runtimes",
    "default-ulimit": "default-ulimits",
    "default-address-pool": "default-address-pools",
    "node-generic-resource": "node-generic-resources",
}


def dockerd_keys_of_command(exec_start: str) -> list[str]:
    """Keys of daemon.json that a command line sets, from ``systemctl show --property=ExecStart --value``.

    dockerd does not start when a key is set in both. ``config-file`` is among them when another file is read.
    """
    keys: set[str] = set()
    for part in exec_start.split(" ; "):
        if not part.strip().startswith("argv[]="):
            continue
        try:
            arguments = shlex.split(part.strip().removeprefix("argv[]="))
        except ValueError:
            arguments = part.split()
        for word in arguments[1:]:
            name = word.lstrip("-").split("=", 1)[0]
            if not word.startswith("-") or not name:
                continue
            short = not word.startswith("--")
            keys.add(_KEYS.get(name[0] if short else name, name))
    return sorted(keys)


def dockerd_conflicts(exec_start: str, options: Mapping[str, Any]) -> list[str]:
    """Keys of ``options`` that the unit's command line sets too, sorted."""
    return sorted(set(dockerd_keys_of_command(exec_start)) & set(options))


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Name of each filter to its function."""
        return {"dockerd_keys_of_command": dockerd_keys_of_command, "dockerd_conflicts": dockerd_conflicts}
