"""Values that cannot be right: placeholders, mail servers with raw signs in the password, secrets in plain files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .names import Known
from .sources import Given, is_readable_name, references, shown_path, text_of, variable_files

#: What the examples hold, and what people write who have no value yet.
PLACEHOLDER = re.compile(
    r"replace[-_ ]?(?:me|this)\b|change[-_ ]?(?:me|this|it)\b|\bfill[-_ ]?me\b|^x{3,}$|^<[^<>]+>$|"
    r"\byour[-_](?:token|password|secret|dsn|key|host|server)\b|\binsert[-_ ]?(?:here|token|password)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(r"token|passw|secret|webhook_url|email_url|notify$|_key$|credential", re.IGNORECASE)
_MAIL_SCHEMES = ("smtp", "smtps", "smtp+tls", "smtp+ssl")
_OTHER_MAIL_SCHEMES = ("consolemail", "dummymail", "filemail", "memorymail", "locmail")
_EXAMPLES = re.compile(r"\.(example|sample|template|dist)\b|\bexample\b")


def is_placeholder(text: str) -> bool:
    """Whether a text is, or holds, what was to be replaced."""
    return PLACEHOLDER.search(text) is not None


def needed_names(given: Sequence[Given], known: Known) -> set[str]:
    """Names that a run reads: our own, Ansible's, and whatever those refer to."""
    by_name: dict[str, list[Given]] = {}
    for one in given:
        by_name.setdefault(one.name, []).append(one)
    found: set[str] = set()
    waiting = [name for name in by_name if name in known.names or name.startswith("ansible_")]
    while waiting:
        name = waiting.pop()
        if name in found or name not in by_name:
            continue
        found.add(name)
        waiting += [word for one in by_name[name] for word in references(one.value)]
    return found


def placeholders(
    given: Sequence[Given], known: Known, current: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """(name, sentence) of each variable that is read and still holds a placeholder.

    ``current`` holds the values in force before templating: a placeholder that another file overrides is no fault.
    """
    needed = needed_names(given, known)
    told: set[str] = set()
    for one in given:
        value = current.get(one.name, one.value)
        if one.name in told or one.name not in needed:
            continue
        if any(is_placeholder(text) for text in text_of(value)) and any(
            is_placeholder(text) for text in text_of(one.value)
        ):
            told.add(one.name)
            yield one.name, f"{one.place}: {one.name} still holds the placeholder of an example; set its real value."


def mail_url_problem(url: str) -> str:
    """What is wrong with the address of the mail server, as a predicate without the address; empty when it will do.

    GlitchTip (django-environ) parses it as a URL: ``#``, ``?`` and ``/`` end the part with user and password.
    """
    if not url:
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in (*_MAIL_SCHEMES, *_OTHER_MAIL_SCHEMES):
        return f"must begin with one of {', '.join(f'{name}://' for name in _MAIL_SCHEMES)}"
    if scheme.lower() in _OTHER_MAIL_SCHEMES:
        return ""
    credentials, at, host = rest.rpartition("@")
    if at:
        if raw := sorted(set(credentials) & set("#/?[]")):
            codes = ", ".join(f"{sign} as %{ord(sign):02X}" for sign in raw)
            return f"holds signs in its user or password that end the address there: write {codes}"
        if ":" not in credentials:
            return "has a user but no password: write smtp://user:password@host:port"
    match = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?(?:\?\S*)?", host)
    if match is None:
        return (
            "is no address of the form smtp://user:password@host:port: "
            "write # as %23, / as %2F and ? as %3F in user and password"
        )
    if match[1] is not None and not 0 < int(match[1]) < 65536:
        return f"names the port {match[1]}, which does not exist"
    return ""


def plain_secrets(sources: Sequence[str], playbook_directory: Path | None = None) -> Iterator[str]:
    """A sentence for each file of secrets that is not encrypted although it is inside a git working tree."""
    for path in variable_files(sources, playbook_directory):
        repository = _git_tree(path)
        if repository is None or not is_readable_name(path) or _EXAMPLES.search(path.name):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.startswith("$ANSIBLE_VAULT;"):
            continue
        named = "vault" in path.stem.lower() or any("vault" in part.lower() for part in path.parts[-2:-1])
        names = list(_plain_names(text, everything=named))
        if names:
            shown = shown_path(path)
            some = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
            yield (
                f"{shown} holds secrets ({some}) in plain text inside the git repository {repository}: "
                f"encrypt it with `ansible-vault encrypt {shown}`."
            )


def _git_tree(path: Path) -> Path | None:
    """The git working tree that holds a file."""
    return next((parent for parent in path.parents if (parent / ".git").exists()), None)


class _Tagged(yaml.SafeLoader):
    """YAML in which a value with a tag of its own (``!vault``) is not plain."""


_Tagged.add_multi_constructor("!", lambda _loader, _tag, _node: None)


def _plain_names(text: str, *, everything: bool) -> Iterator[str]:
    """Names of secrets that stand there as plain text: all of a vault's file, else those that say so themselves."""
    try:
        data = yaml.load(text, Loader=_Tagged)  # noqa: S506 - a safe loader
    except yaml.YAMLError:
        return
    for name, value in (data if isinstance(data, dict) else {}).items():
        texts = [part for part in text_of(value) if part.strip() and "{{" not in part]
        if texts and (everything or str(name).startswith("vault_")):
            yield str(name)


def is_secret_name(name: str) -> bool:
    """Whether the value of a variable of that name is never shown."""
    return _SECRET_NAME.search(name) is not None
