"""Filters of the role configuration: an export as two files, and differences as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

_TEMPLATE = re.compile(r"\{[{%#]|#jinja2:")  # a header of that name gives the template marks of its own
_HEADER = """\
# Desired state of GlitchTip, for playbooks/configure.yml. `ansible-doc glitchtip_configuration` explains it.
# left_out: what is on the server and cannot be in here, with the reason. A purge never removes it.
# Not in here, because the API does not give it or cannot write it: the values of DSN keys (a new server makes new DSNs),
# tokens, the keys without a name, rate limits of keys, the monitors of a status page, passwords, issues and events;
# on the 5.2 line also the tags of recipients. A member who accepted an invitation is invited again on a new server.
"""
_SECRETS_HEADER = (
    "# Addresses that hold a secret. Encrypt this file: ansible-vault encrypt configuration-secrets.yml\n"
)


class _Literal(str):
    """Text that Ansible must not read as a template, whoever chose it on the server."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Safe YAML, with lists indented the way that linters want them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists below their key."""
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out."""
        del data
        return True


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text; with line breaks (of Unicode, too) and other signs that do not print escaped, or they are read as spaces."""
    plain = text.isprintable()
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _quoted)
_Dumper.add_representer(
    _Literal, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"')
)


def configuration_files(organizations: list[dict[str, Any]]) -> dict[str, str]:
    """``{"configuration": YAML, "secrets": YAML}`` of an export.

    Addresses that may hold a secret (of a webhook everything behind the host, of a monitor a password or a
    query) go to the second file, and the first refers to them. Text of the server that looks like a template
    is written as ``!unsafe``, so that loading the file runs nothing.
    """
    secrets: dict[str, str] = {}

    def refer(url: str, *place: str) -> Any:
        stem = "/".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in place)
        number = 1
        while f"{stem}/{number}" in secrets:
            number += 1
        name = f"{stem}/{number}"
        secrets[name] = url
        return f"{{{{ configuration_secrets['{name}'] }}}}"

    written = []
    for organization in organizations:
        entry = _literal(organization)
        for project, plain in zip(_list(entry, "projects"), _list(organization, "projects"), strict=True):
            for alert, rule in zip(_list(project, "alerts"), _list(plain, "alerts"), strict=True):
                at = (organization["name"], plain["name"], rule["name"])
                for recipient in alert.get("recipients") or []:
                    if _hides(recipient.get("url"), also_path=True):
                        recipient["url"] = refer(str(recipient["url"]), *at)
                    config = recipient.get("config") or {}
                    if config.get("api_key"):
                        config["api_key"] = refer(str(config["api_key"]), *at, "api-key")
        for monitor, plain in zip(_list(entry, "monitors"), _list(organization, "monitors"), strict=True):
            if _hides(monitor.get("url"), also_path=False):
                monitor["url"] = refer(str(monitor["url"]), organization["name"], "monitor", plain["name"])
        written.append(entry)
    return {
        "configuration": _HEADER + _yaml({"configuration_organizations": written}),
        "secrets": _SECRETS_HEADER
        + _yaml({"configuration_secrets": {name: _literal(url) for name, url in secrets.items()}}),
    }


def _list(entry: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of an entry; one that was left out has none."""
    found: list[dict[str, Any]] = entry.get(name) or []
    return found


def _hides(url: str | None, *, also_path: bool) -> bool:
    if not url:
        return False
    parts = urlsplit(url if "//" in url else f"//{url}")
    return bool("@" in parts.netloc or parts.query or (also_path and parts.path.strip("/")))


def _literal(value: Any) -> Any:
    """A copy in plain types, with text that looks like a template marked."""
    if isinstance(value, Mapping):
        return {str(key): _literal(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_literal(part) for part in value]
    if isinstance(value, str):
        return _Literal(value) if _TEMPLATE.search(value) else str(value)
    return value


def _yaml(data: Any) -> str:
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, explicit_start=True, width=150
    )
    return text


def configuration_table(result: Mapping[str, Any]) -> list[str]:
    """The differences of a run of ``glitchtip_configuration``, a line each, in columns."""
    rows = [
        (
            {"create": "missing", "update": "differs", "delete": "to be removed"}[change["action"]],
            change["kind"].replace("_", " "),
            change["name"],
            change["project"] or "",
            change["organization"],
            _values(change),
        )
        for change in result.get("plan") or []
    ]
    rows += [
        (
            "unmanaged",
            found["kind"].replace("_", " "),
            found["name"],
            found["project"] or "",
            found["organization"],
            "",
        )
        for found in result.get("unmanaged") or []
    ]
    if not rows:
        return ["no differences"]
    heads = ("difference", "kind", "name", "project", "organization", "server -> configuration")
    widths = [max(len(str(row[column])) for row in [heads, *rows]) for column in range(len(heads) - 1)]
    lines = []
    for row in [heads, *rows]:
        cells = [str(cell).ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("  ".join([*cells, str(row[-1])]).rstrip())
    return lines


def _values(change: Mapping[str, Any]) -> str:
    if change["action"] != "update":
        return ""
    before, after = change.get("before") or {}, change.get("after") or {}
    return ", ".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in after)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {"configuration_files": configuration_files, "configuration_table": configuration_table}
