"""Messages to people about the switch: Slack, Discord, Telegram, e-mail, any webhook.

A message is news and never a part of the switch: sending takes a few seconds at most, raises nothing, and a
target that does not answer is one sentence for the journal. The text is plain; it is escaped whole for each
medium, so that neither a fact nor a template can call a channel together, link or format.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import smtplib
import socket
import ssl
import stat
import string
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from glitchtip_core.http import HttpError, request
from glitchtip_core.json_text import decode_json
from glitchtip_core.text import (
    escape_discord,
    escape_slack,
    escape_telegram,
    one_line,
    printable,
    printable_lines,
    without_mentions,
)

from .errors import CutoverError, UsageError

if TYPE_CHECKING:
    from .config import Config

#: What can be told, and what is said when the file has no text of its own. The first line is the subject; a further
#: line that names a fact which is not known is left out.
TEMPLATES: Mapping[str, str] = {
    "start": (
        "$product on $host: moving the error tracking begins\n"
        "Step: $phase\n"
        "To: $to\n"
        "DSN: from $old_host to $new_host\n"
        "Services: $services\n"
        "Each service restarts once; users may notice a few seconds. Please deploy and restart nothing until the "
        "next message.\n"
        "If something looks wrong meanwhile, call $contact."
    ),
    "gate": (
        "$product on $host: a gate $verdict\n"
        "Gate: $gate\n"
        "$reason\n"
        "A gate that is not passed changes nothing. Questions and objections go to $contact now."
    ),
    "applied": (
        "$product on $host: the switch is made and proven, not yet confirmed\n"
        "Errors go to: $to ($new_host)\n"
        "Services: $services\n"
        "It took $seconds s.\n"
        "Without a confirmation by $confirm_before it takes itself back.\n"
        "Please look at your service now; if it misbehaves, call $contact (the way back: glitchtip-rollback)."
    ),
    "done": (
        "$product on $host: the switch is done\n"
        "Errors go to: $to\n"
        "Services: $services\n"
        "It took $seconds s.\n"
        "Deployments are free again. Errors of before are where they were.\n"
        "If errors are missing from now on, call $contact."
    ),
    "rolled_back": (
        "$product on $host: the switch was taken back\n"
        "Reason: $reason\n"
        "Only for: $service\n"
        "Errors go to: $back_to\n"
        "It took $seconds_to_last_restart s.\n"
        "Without proof yet: $unproven\n"
        "Still open: $problems\n"
        "Nothing has to be done for your service. Who sees it misbehave calls $contact."
    ),
    "incomplete": (
        "$product on $host: SOMEBODY HAS TO LOOK, the way back is not complete\n"
        "Reason: $reason\n"
        "Still open: $problems\n"
        "Call $contact now. On the host: ai-admin-cutover status, then glitchtip-rollback.\n"
        "Please deploy and restart nothing until this is closed."
    ),
    "watch_alarm": (
        "$product on $host: the watch after the switch raised an alarm\n"
        "Reason: $reason\n"
        "The switch is being taken back now; the next message tells how that ended.\n"
        "Call $contact if no message follows within two minutes."
    ),
    "watch_passed": (
        "$product on $host: the watch after the switch ended well\n"
        "Looks at containers, services, memory and events: $looks\n"
        "Services that sent nothing in that time: $silent\n"
        "Still naming another tracker, which has to be corrected: $drift\n"
        "Nothing else has to be done. Later trouble goes to $contact as always."
    ),
    "drift": (
        "$product on $host: a service or a settings file names another tracker than the active one\n"
        "Found: $problems\n"
        "Nothing was changed. Correct each of them as it says; `ai-admin-cutover drift` on the host lists them all.\n"
        "For questions call $contact."
    ),
}
EVENTS = tuple(TEMPLATES)
#: Characters, after escaping, that each medium takes: Slack cuts texts at 40 000 and recommends 4 000, Discord's
#: content ends at 2 000, Telegram's text at 4 096 (counted as UTF-16), the others are ours.
LIMITS = {"slack": 4000, "discord": 2000, "telegram": 4096, "email": 20_000, "webhook": 20_000}
TELEGRAM_API = "https://api.telegram.org"

_CLIENT = "ai-admin-cutover"
_RETRY_AFTER = 0.5
_FIELDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # kind: (needed, optional); kind, name and events stand in every target
    "slack": (frozenset({"url"}), frozenset()),
    "discord": (frozenset({"url"}), frozenset()),
    "webhook": (frozenset({"url"}), frozenset()),
    "telegram": (frozenset({"token", "chat_id"}), frozenset({"api_url"})),
    "email": (
        frozenset({"host", "from", "to"}),
        frozenset({"port", "security", "username", "password"}),
    ),
}
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


@dataclass(frozen=True)
class Target:
    """Where a message goes. ``options`` are the fields of its kind, checked; they are secret."""

    kind: str
    name: str
    events: tuple[str, ...]
    options: Mapping[str, Any] = field(repr=False)

    def secrets(self) -> list[str]:
        """What must not be read anywhere."""
        named = [self.options.get(key) for key in ("url", "token", "password", "username", "api_url")]
        return sorted((str(value) for value in named if value and len(str(value)) > 3), key=len, reverse=True)


@dataclass(frozen=True)
class Settings:
    """The checked file of notifications. ``timeout`` is in seconds, for all targets together."""

    targets: tuple[Target, ...] = ()
    templates: Mapping[str, str] = field(default_factory=dict)
    product: str = "AI Admin"
    contact: str = ""
    timeout: float = 5.0


@dataclass(frozen=True)
class Message:
    """What is told: event, subject, whole text (the subject is its first line), facts as text, when."""

    event: str
    title: str
    text: str
    facts: Mapping[str, str]
    moment: datetime


class _NotSentError(Exception):
    """Why a target was not reached, without any of its secrets; ``again`` when a second try makes sense."""

    def __init__(self, reason: str, *, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.again = again
        self.wait = wait


# ------------------------------------------------------------------ the file


def load_settings(path: Path | None) -> Settings:
    """Read and check the file of notifications; no file named means no targets.

    Raises UsageError with one sentence that names the file and the place, and holds no secret.
    """
    if path is None:
        return Settings()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise UsageError(f"{path} is not a regular file")
            if info.st_mode & 0o077:
                mode = stat.S_IMODE(info.st_mode)
                raise UsageError(f"{path} holds secrets and may be read by others (mode {mode:o}): chmod 600 it")
            data = decode_json(file.read())
    except FileNotFoundError:
        raise UsageError(f"there is no file of notifications {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the file of notifications {path} cannot be read: {type(error).__name__}") from None
    return parse_settings(data, str(path))


def parse_settings(data: object, where: str = "the notifications") -> Settings:
    """Check the decoded document. Raises UsageError with one sentence that begins with ``where``."""
    document = _object(data, where)
    _known(document, {"targets", "templates", "product", "contact", "timeout"}, where)
    entries = document.get("targets")
    if not isinstance(entries, list):
        raise UsageError(f"{where}: targets must be a list")
    targets = tuple(_target(entry, f"{where}: targets[{number}]") for number, entry in enumerate(entries))
    names = [target.name for target in targets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where}: two targets are called {twice[0]}")
    templates = _object(document.get("templates") or {}, f"{where}: templates")
    for event, text in templates.items():
        if event not in TEMPLATES:
            raise UsageError(f"{where}: templates.{event} is for no event ({', '.join(EVENTS)})")
        if not isinstance(text, str) or not text.strip() or not string.Template(text).is_valid():
            raise UsageError(
                f"{where}: templates.{event} must be a text in which $ begins the name of a fact ($$ is a dollar sign)"
            )
    timeout = document.get("timeout", 5)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0.1 <= timeout <= 30:
        raise UsageError(f"{where}: timeout must be a number of seconds from 0.1 to 30")
    return Settings(
        targets=targets,
        templates=templates,
        product=_line(document, "product", where, "AI Admin"),
        contact=_line(document, "contact", where, ""),
        timeout=float(timeout),
    )


def _object(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UsageError(f"{where} must be a JSON object")
    return data


def _known(data: Mapping[str, Any], fields: set[str] | frozenset[str], where: str) -> None:
    if unknown := sorted(set(data) - set(fields)):
        raise UsageError(f"{where}: {unknown[0]} is not known here ({', '.join(sorted(fields))} are)")


def _line(data: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A text of one line; needed when there is no default."""
    value = data.get(name, default)
    if not isinstance(value, str) or (default is None and not value) or printable(value) != value:
        raise UsageError(f"{where}: {name} must be a text of one line")
    return value


def _target(data: object, where: str) -> Target:
    entry = _object(data, where)
    kind = _line(entry, "kind", where)
    if kind not in _FIELDS:
        raise UsageError(f"{where}: kind must be one of {', '.join(sorted(_FIELDS))}")
    needed, optional = _FIELDS[kind]
    _known(entry, needed | optional | {"kind", "name", "events"}, where)
    if missing := sorted(needed - entry.keys()):
        raise UsageError(f"{where}: {missing[0]} is missing, a target of kind {kind} needs it")
    name = _line(entry, "name", where)
    events = entry.get("events", list(EVENTS))
    if not isinstance(events, list) or not events or any(event not in TEMPLATES for event in events):
        raise UsageError(f"{where}: events must be a list of {', '.join(EVENTS)}")
    check = {"email": _email, "telegram": _telegram}.get(kind, _hook)
    return Target(kind, name, tuple(events), check(entry, where))


def _hook(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    plain = entry["kind"] == "webhook"
    return {"url": _address(_line(entry, "url", where), f"{where}: url", plain_http=plain)}


def _telegram(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    token = _line(entry, "token", where)
    if re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+", token) is None:
        raise UsageError(f"{where}: token is not a bot token (digits, a colon, letters)")
    chat = str(entry["chat_id"])
    if isinstance(entry["chat_id"], bool) or re.fullmatch(r"-?[0-9]+|@[A-Za-z0-9_]+", chat) is None:
        raise UsageError(f"{where}: chat_id must be a number or @channel")
    api = _address(_line(entry, "api_url", where, TELEGRAM_API), f"{where}: api_url", plain_http=False)
    return {"token": token, "chat_id": chat, "api_url": api.rstrip("/")}


def _email(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    security = _line(entry, "security", where, "starttls")
    if security not in _PORTS:
        raise UsageError(f"{where}: security must be starttls, tls or none")
    port = entry.get("port", _PORTS[security])
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise UsageError(f"{where}: port must be a number from 1 to 65535")
    host = _line(entry, "host", where)
    username, password = _line(entry, "username", where, ""), _line(entry, "password", where, "")
    if bool(username) != bool(password):
        raise UsageError(f"{where}: username and password belong together")
    if password and security == "none" and not _is_local(host):
        raise UsageError(f"{where}: security is none, so the password would cross the network unencrypted")
    receivers = entry["to"]
    if not isinstance(receivers, list) or not receivers:
        raise UsageError(f"{where}: to must be a list of addresses")
    for address in (entry["from"], *receivers):
        if not isinstance(address, str) or re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", address) is None:
            raise UsageError(f"{where}: from and to must be mail addresses as in ops@example.org")
    return {
        "host": host,
        "port": port,
        "security": security,
        "username": username,
        "password": password,
        "from": entry["from"],
        "to": tuple(receivers),
    }


def _address(url: str, where: str, *, plain_http: bool) -> str:
    """An http(s) address without credentials; http only to this host, or where ``plain_http`` allows it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not host or re.search(r"[^!-~]", url) or parts.fragment:
        raise UsageError(f"{where} must be an address that begins with https://")
    if parts.username is not None:
        raise UsageError(f"{where} must hold no user name or password")
    if parts.scheme == "http" and not (plain_http or _is_local(host)):
        raise UsageError(f"{where} must begin with https://, as it is a secret itself")
    return url


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


# ------------------------------------------------------------------ the text


def fact_text(value: object) -> str | None:
    """A fact as text of one line without credentials; None when there is nothing to tell."""
    if value is None or value in ("", [], (), {}):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return fact_text(value.get("name")) or fact_text(", ".join(f"{key}: {item}" for key, item in value.items()))
    if isinstance(value, list | tuple | set | frozenset):
        texts = [text for item in value if (text := fact_text(item))]
        more = f" and {len(texts) - 20} more" if len(texts) > 20 else ""
        return ", ".join(texts[:20]) + more or None
    text = one_line(value)
    return _CREDENTIALS.sub("***@", text) or None


#: What facts of the switch are called for people.
_WORDS: Mapping[str, Mapping[object, str]] = {
    "to": {"glitchtip": "GlitchTip", "mirror": "the old tracker, with a copy to GlitchTip (mirror)"},
    "back_to": {
        "before": "the tracker of before the migration",
        "mirror": "the old tracker, with a copy to GlitchTip (mirror)",
        "glitchtip": "GlitchTip",
    },
    "verdict": {True: "is passed", False: "is NOT passed"},
}


def compose(settings: Settings, event: str, facts: Mapping[str, Any], host: str, now: float) -> Message:
    """The message of an event. Facts named ``product``, ``contact``, ``host`` and ``event`` are ours.

    ``to``, ``back_to`` and ``verdict`` are made from ``target``, ``stands`` and ``passed`` where these are given.
    """
    words = {
        name: _WORDS[name].get(facts.get(source)) if isinstance(facts.get(source), str | bool) else None
        for name, source in (("to", "target"), ("back_to", "stands"), ("verdict", "passed"))
    }
    ours = {"product": settings.product, "host": host, "event": event}
    ours["contact"] = settings.contact or "the people who run the switch"
    known = {
        name: text
        for name, value in {**words, **facts, **ours}.items()
        if (text := fact_text(value)) is not None
    }
    if known.get("confirm_before", "").isdigit():
        known["confirm_before"] = f"{datetime.fromtimestamp(int(known['confirm_before'])).astimezone():%H:%M %Z}"
    lines = _filled(settings.templates.get(event) or TEMPLATES[event], known)
    return Message(event, lines[0], "\n".join(lines), known, datetime.fromtimestamp(now, UTC))


def _filled(text: str, facts: Mapping[str, str]) -> list[str]:
    """The lines of a template whose facts are all known; in the subject an unknown one is a question mark."""
    subject, *rest = text.strip().splitlines()
    lines = [string.Template(subject).substitute(defaultdict(lambda: "?", facts)).strip()]
    for line in rest:
        template = string.Template(line)
        if set(template.get_identifiers()) <= facts.keys():
            lines.append(template.substitute(facts).rstrip())
    return lines


_ESCAPES: Mapping[str, Callable[[str], str]] = {
    "slack": escape_slack,
    "discord": escape_discord,
    "telegram": escape_telegram,
    "email": str,
    "webhook": without_mentions,
}


def clipped(text: str, kind: str) -> str:
    """``text`` escaped for a medium and cut to its limit, never within an escape."""
    escape, limit = _ESCAPES[kind], LIMITS[kind]
    text = printable_lines(text)

    def size(part: str) -> int:
        return len(escape(part).encode("utf-16-le")) // 2

    if size(text) <= limit:
        return escape(text)
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle] + " …") <= limit else (low, middle - 1)
    return escape(text[:low] + " …")


# ------------------------------------------------------------------ sending


def _post(url: str, document: Mapping[str, Any], timeout: float) -> None:
    """Send one JSON document. Raises _NotSentError."""
    try:
        answer = request(
            url,
            what="",
            timeout=timeout,
            limit=0,
            method="POST",
            headers={"Content-Type": "application/json", "User-Agent": _CLIENT},
            body=json.dumps(document).encode(),
        )
    except HttpError as error:
        raise _NotSentError(error.reason, again=error.passing) from None
    if not 200 <= answer.status < 300:
        wait = answer.headers.get("retry-after", "")
        raise _NotSentError(
            f"answered {answer.status}",
            again=answer.status == 429 or answer.status >= 500,
            wait=float(wait) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", wait) else 0.0,
        )


def _unreached(error: Exception) -> _NotSentError:
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, Exception) else error
    if isinstance(cause, TimeoutError):
        return _NotSentError("did not answer in time")
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _NotSentError("has a certificate that cannot be trusted")
    if isinstance(cause, socket.gaierror):
        return _NotSentError("has a name that cannot be resolved", again=True)
    text = cause.strerror if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) else None
    return _NotSentError(f"cannot be reached: {text or type(cause).__name__}", again=True)


def _mail(options: Mapping[str, Any], message: Message, host: str, timeout: float) -> None:
    """Send one mail. Raises _NotSentError."""
    name = re.sub(r"[^A-Za-z0-9.-]", "", host) or "localhost"
    mail = EmailMessage()
    mail["Subject"] = printable(message.title, " ")[:150]
    mail["From"] = options["from"]
    mail["To"] = ", ".join(options["to"])
    mail["Date"] = format_datetime(message.moment)
    mail["Message-ID"] = make_msgid(domain=name)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(clipped(message.text, "email") + "\n")
    context = ssl.create_default_context()
    try:
        server: smtplib.SMTP
        if options["security"] == "tls":
            server = smtplib.SMTP_SSL(
                options["host"], options["port"], local_hostname=name, timeout=timeout, context=context
            )
        else:
            server = smtplib.SMTP(options["host"], options["port"], local_hostname=name, timeout=timeout)
        with server:
            if options["security"] == "starttls":
                server.starttls(context=context)
            if options["username"]:
                server.login(options["username"], options["password"])
            refused = server.send_message(mail, options["from"], list(options["to"]))
    except smtplib.SMTPAuthenticationError as error:
        raise _NotSentError(f"refused the user name and password ({error.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        raise _NotSentError(f"refused every receiver ({codes[0]})", again=codes[0] < 500) from None
    except smtplib.SMTPNotSupportedError:
        raise _NotSentError(f"offers no {'STARTTLS' if options['security'] == 'starttls' else 'login'}") from None
    except smtplib.SMTPResponseException as error:
        raise _NotSentError(f"answered {error.smtp_code}", again=400 <= error.smtp_code < 500) from None
    except (OSError, smtplib.SMTPException) as error:
        raise _unreached(error) from None
    if refused:
        raise _NotSentError(f"refused {len(refused)} of {len(options['to'])} receivers")


class Notifier:
    """Tells people what happens, as the file at ``path`` says; without a file it tells nobody.

    ``clock`` gives the time of day, ``monotonic`` and ``sleep`` measure and wait, ``host`` is this host's name.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        host: str | None = None,
    ) -> None:
        self._path = path
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._host = host or socket.gethostname()

    def settings(self) -> Settings:
        """The file as it is now. Raises UsageError when it is wrong."""
        return load_settings(self._path)

    def preview(self, event: str, facts: Mapping[str, Any]) -> tuple[Message, list[Target]]:
        """What would be sent, and to whom. Raises UsageError for an unknown event or a wrong file."""
        _, message, targets = self._prepared(event, facts)
        return message, targets

    def _prepared(self, event: str, facts: Mapping[str, Any]) -> tuple[Settings, Message, list[Target]]:
        if event not in TEMPLATES:
            raise UsageError(f"there is no event {event} to tell, only {', '.join(EVENTS)}")
        settings = self.settings()
        message = compose(settings, event, facts, self._host, self._clock())
        return settings, message, [target for target in settings.targets if event in target.events]

    def send(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        """Tell every target that wants this event, all at once; returns a sentence for each that was not reached.

        Takes no longer than the file's ``timeout``, never raises, and no sentence holds a secret.
        """
        try:
            return self._send(event, facts)
        except CutoverError as error:
            return [str(error)]
        except Exception as error:
            return [f"nobody was told: unexpected {type(error).__name__}"]

    def _send(self, event: str, facts: Mapping[str, Any]) -> list[str]:
        settings, message, targets = self._prepared(event, facts)
        deadline = self._monotonic() + settings.timeout
        outcomes: dict[str, str] = {}

        def work(target: Target) -> None:
            try:
                self._deliver(target, message, deadline)
                outcomes[target.name] = ""
            except _NotSentError as error:
                outcomes[target.name] = str(error)
            except Exception as error:
                outcomes[target.name] = f"was not told: unexpected {type(error).__name__}"

        threads = [threading.Thread(target=work, args=(target,), daemon=True) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - self._monotonic()))
        problems = []
        for target in targets:
            if reason := outcomes.get(target.name, "did not answer in time"):
                sentence = f"{target.name} ({target.kind}) {reason}"
                for secret in target.secrets():
                    sentence = sentence.replace(secret, "***")
                problems.append(sentence)
        return problems

    def _deliver(self, target: Target, message: Message, deadline: float) -> None:
        """Send to one target, and once more where that may help and fits the time. Raises _NotSentError."""
        try:
            self._try(target, message, deadline)
        except _NotSentError as error:
            wait = max(error.wait, _RETRY_AFTER)
            if not error.again or self._monotonic() + wait >= deadline:
                raise
            self._sleep(wait)
            self._try(target, message, deadline)

    def _try(self, target: Target, message: Message, deadline: float) -> None:
        left = deadline - self._monotonic()
        if left <= 0:
            raise _NotSentError("did not answer in time")
        options = target.options
        if target.kind == "email":
            _mail(options, message, self._host, left)
            return
        text = clipped(message.text, target.kind)
        if target.kind == "slack":
            _post(options["url"], {"text": text, "mrkdwn": False, "unfurl_links": False, "unfurl_media": False}, left)
        elif target.kind == "discord":
            _post(options["url"], {"content": text, "allowed_mentions": {"parse": []}, "flags": 4}, left)
        elif target.kind == "telegram":
            document = {
                "chat_id": options["chat_id"],
                "text": text,
                "parse_mode": "HTML",
                "link_preview_options": {"is_disabled": True},
            }
            _post(f"{options['api_url']}/bot{options['token']}/sendMessage", document, left)
        else:
            document = {
                "event": message.event,
                "title": without_mentions(printable(message.title, " ")),
                "text": text,
                "facts": {name: without_mentions(value[:2000]) for name, value in list(message.facts.items())[:50]},
                "time": message.moment.isoformat(timespec="seconds"),
            }
            _post(options["url"], document, left)


def parse_facts(pairs: list[str]) -> dict[str, str]:
    """Facts of a command line, ``KEY=VALUE`` each. Raises UsageError."""
    facts = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or re.fullmatch(r"[a-z_][a-z0-9_]*", name) is None:
            raise UsageError(f"--fact takes KEY=VALUE with a KEY of small letters, digits and _, not {pair[:40]!r}")
        facts[name] = value
    return facts


def announce(
    config: Config, event: str, facts: Mapping[str, Any], *, dry_run: bool = False, notifier: Notifier | None = None
) -> dict[str, Any]:
    """Tell people about ``event``; with ``dry_run`` only say what would be told to whom.

    The result: ``changed``, ``would_change``, ``event``, ``text``, ``targets`` (name and kind of those that want
    this event) and ``problems``. Raises UsageError for an unknown event or a wrong file.
    """
    notifier = notifier or Notifier(config.notify_file)
    everything = {"migration_id": config.migration_id, **facts}
    message, targets = notifier.preview(event, everything)
    result: dict[str, Any] = {
        "changed": False,
        "would_change": bool(targets),
        "event": event,
        "text": message.text,
        "targets": [{"name": target.name, "kind": target.kind} for target in targets],
        "problems": [],
    }
    if dry_run or not targets:
        return result
    problems = notifier.send(event, everything)
    return {**result, "changed": len(problems) < len(targets), "problems": problems}
