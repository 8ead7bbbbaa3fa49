"""People are told in time and in plain words; a target that fails stops nothing and no secret is ever told."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glitchtip_core.errors import CoreError
from glitchtip_core.notify.messages import fact_text
from glitchtip_core.notify.notifier import Notifier
from glitchtip_core.notify.transport import clipped
from glitchtip_core.notify.transports import TRANSPORTS
from glitchtip_cutover.announce import CATALOGUE, TEMPLATES, announce, parse_facts, parse_settings
from glitchtip_cutover.errors import UsageError

EVENTS = CATALOGUE.events
TOKEN = "123456:canary-Telegram-Token"
PASSWORD = "canary-password-of-mail"
SECRET = "canary-secret-path"
NOW = 1_800_000_000.0
FACTS = {
    "target": "glitchtip",
    "new_host": "127.0.0.1:8000",
    "passed": True,
    "stands": "before",
    "reason": "the canary did not start",
    "phase": "phase 4",
}


class Hook(ThreadingHTTPServer):
    """A local HTTP server; ``answers`` are (status, headers) in turn, the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, dict[str, str]]] = [(200, {})]
        self.delay = 0.0
        self.released = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.requests.append((self.path, dict(self.headers), json.loads(body)))
                hook.released.wait(hook.delay)
                status, headers = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            do_GET = do_POST  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/{SECRET}"


class Post(socketserver.ThreadingTCPServer):
    """A local SMTP server that keeps what it is given; ``replies`` override the answer to a command."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.mails: list[tuple[str, list[str], EmailMessage]] = []
        self.commands: list[str] = []
        self.encrypted: list[bool] = []
        self.replies: dict[str, str] = {}
        post = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    self.talk()

            def say(self, text: str) -> None:
                self.wfile.write(text.encode() + b"\r\n")

            def talk(self) -> None:
                sender, receivers = "", []
                self.say("220 post")
                while line := self.rfile.readline().decode().strip():
                    verb = line.split()[0].upper()
                    post.commands.append(verb)
                    if verb in post.replies:
                        self.say(post.replies[verb])
                    elif verb == "EHLO":
                        offers = ["post", "AUTH PLAIN"] + (["STARTTLS"] if context else [])
                        for offer in offers[:-1]:
                            self.say(f"250-{offer}")
                        self.say(f"250 {offers[-1]}")
                    elif verb == "STARTTLS" and context:
                        self.say("220 go on")
                        self.connection = context.wrap_socket(self.connection, server_side=True)
                        self.rfile, self.wfile = (
                            self.connection.makefile("rb"),
                            self.connection.makefile("wb", 0),
                        )
                    elif verb == "AUTH":
                        self.say("235 welcome")
                    elif verb == "MAIL":
                        sender = line.partition(":")[2].split()[0]
                        self.say("250 ok")
                    elif verb == "RCPT":
                        receivers.append(line.partition(":")[2])
                        self.say("250 ok")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = []
                        while (text := self.rfile.readline()) != b".\r\n":
                            lines.append(text)
                        mail = message_from_bytes(b"".join(lines), policy=policy.default)
                        assert isinstance(mail, EmailMessage)
                        post.mails.append((sender, receivers, mail))
                        post.encrypted.append(isinstance(self.connection, ssl.SSLSocket))
                        self.say("250 taken")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 ok")

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextlib.contextmanager
def serving(server: Any) -> Iterator[Any]:
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        if isinstance(server, Hook):
            server.released.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with serving(Hook()) as server:
        yield server


@pytest.fixture
def post() -> Iterator[Post]:
    with serving(Post()) as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Key and certificate of "localhost" that nobody trusts."""
    place = tmp_path_factory.mktemp("tls")
    key, cert = place / "key.pem", place / "cert.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, cert


def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of notifications."""

    def write(*targets: dict[str, Any], **more: Any) -> Path:
        path = tmp_path / "notify.json"
        path.write_text(json.dumps({"targets": targets, "contact": "Anna, +31 20 123", **more}))
        path.chmod(0o600)
        return path

    return write


def notifier(path: Path | None, **more: Any) -> Notifier:
    return Notifier(path, CATALOGUE, clock=lambda: NOW, host="app-1", **more)


def slack(hook: Hook, name: str = "team", **more: Any) -> dict[str, Any]:
    return {"kind": "slack", "name": name, "url": hook.url, **more}


def email(post: Post, **more: Any) -> dict[str, Any]:
    return {
        "kind": "email",
        "name": "mail",
        "host": "127.0.0.1",
        "port": post.port,
        "security": "none",
        "from": "ops@example.org",
        "to": ["a@example.org", "b@example.org"],
        **more,
    }


# ------------------------------------------------------------------ what is said


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_says_what_happens_where_what_to_do_and_whom_to_call(
    event: str, hook: Hook, written: Callable[..., Path]
) -> None:
    assert notifier(written(slack(hook))).send(event, FACTS) == []
    [(path, _, document)] = hook.requests
    assert path == f"/services/{SECRET}"
    assert document["text"].startswith("AI Admin on app-1: ")
    assert "Anna, +31 20 123" in document["text"]
    assert "$" not in document["text"]
    assert 2 <= len(document["text"].splitlines()) <= 8


def test_a_line_with_an_unknown_fact_is_left_out_and_facts_are_filled_in(
    written: Callable[..., Path],
) -> None:
    message, _ = notifier(written()).preview("rolled_back", {"reason": "the worker died", "problems": []})
    assert "Reason: the worker died" in message.text
    assert "Still open" not in message.text
    assert "Errors go to" not in message.text
    message, _ = notifier(written()).preview("incomplete", {"problems": ["one", {"name": "two", "pid": 3}]})
    assert "Still open: one, two\n" in message.text


@pytest.mark.parametrize(
    ("event", "facts", "line"),
    [
        ("start", {"target": "mirror"}, "To: the old tracker, with a copy to GlitchTip (mirror)"),
        ("done", {"target": "glitchtip"}, "Errors go to: GlitchTip"),
        ("rolled_back", {"stands": "before"}, "Errors go to: the tracker of before the migration"),
        ("rolled_back", {"service": "api", "target": "snapshot"}, "Only for: api"),
        ("gate", {"passed": False, "reason": "no GO"}, "AI Admin on app-1: a gate is NOT passed"),
        ("gate", {"passed": True}, "AI Admin on app-1: a gate is passed"),
        ("gate", {"verdict": "waits"}, "AI Admin on app-1: a gate waits"),
        ("watch_passed", {"looks": 120, "silent": ["job"]}, "Services that sent nothing in that time: job"),
    ],
)
def test_facts_of_the_switch_are_told_in_words(
    event: str, facts: dict[str, Any], line: str, written: Callable[..., Path]
) -> None:
    message, _ = notifier(written()).preview(event, facts)
    assert line in message.text.splitlines()


def test_an_own_template_is_used_and_an_unknown_fact_in_its_subject_is_marked(
    hook: Hook, written: Callable[..., Path]
) -> None:
    path = written(
        slack(hook),
        templates={"done": "Klaar op $host\nKosten: $$5\n$weird", "start": "Start: $nobody_knows"},
    )
    sender = notifier(path)
    sender.send("done", {})
    sender.send("start", {})
    texts = [document["text"] for _, _, document in hook.requests]
    assert texts[0] == "Klaar op app-1\nKosten: $5"
    assert texts[1] == "Start: ?"


def test_facts_are_one_line_each_and_lose_credentials_and_invisible_characters() -> None:
    reason = "no answer from https://0123456789abcdef@sentry.io/1\nAll clear!\u202e\x1b[31m"
    message, _ = notifier(None).preview("rolled_back", {"reason": reason})
    assert "Reason: no answer from https://***@sentry.io/1 All clear! [31m" in message.text
    assert fact_text([f"service {number}" for number in range(30)]) == (
        ", ".join(f"service {number}" for number in range(20)) + " and 10 more"
    )


def test_default_templates_only_name_facts_by_words_and_every_event_has_one() -> None:
    assert set(EVENTS) == {
        "start", "gate", "applied", "done", "rolled_back", "incomplete", "watch_alarm", "watch_passed", "drift",
    }  # fmt: skip
    parse_settings({"targets": [], "templates": dict(TEMPLATES)})


def test_only_targets_that_want_an_event_are_told(hook: Hook, written: Callable[..., Path]) -> None:
    path = written(slack(hook, "all"), slack(hook, "alarms", events=["watch_alarm"]))
    assert notifier(path).send("done", {}) == []
    assert len(hook.requests) == 1
    assert notifier(path).send("watch_alarm", {}) == []
    assert len(hook.requests) == 3


def test_without_a_file_nobody_is_told_and_nothing_fails() -> None:
    assert notifier(None).send("done", FACTS) == []


# ------------------------------------------------------------------ each medium

NASTY = "<!channel> @everyone <@U1> & <b>bold</b> *x* _y_ `z` ||s|| [a](http://b) @here"


def test_slack_gets_no_mention_and_no_markup(hook: Hook, written: Callable[..., Path]) -> None:
    assert notifier(written(slack(hook))).send("rolled_back", {"reason": NASTY}) == []
    document = hook.requests[0][2]
    assert document["mrkdwn"] is False
    assert "<" not in document["text"]
    assert ">" not in document["text"]
    assert "&lt;!channel&gt;" in document["text"]
    assert "@everyone" not in document["text"]
    assert "@here" not in document["text"]
    assert (document["unfurl_links"], document["unfurl_media"]) == (False, False)


def test_discord_gets_no_mention_and_no_markup(hook: Hook, written: Callable[..., Path]) -> None:
    target = {"kind": "discord", "name": "d", "url": hook.url}
    assert notifier(written(target)).send("rolled_back", {"reason": NASTY}) == []
    document = hook.requests[0][2]
    assert document["allowed_mentions"] == {"parse": []}
    assert "@everyone" not in document["content"]
    assert r"\*x\*" in document["content"]
    assert r"\|\|s\|\|" in document["content"]
    assert r"\[a\]\(http://b\)" in document["content"]


def test_telegram_gets_html_that_is_text_only(hook: Hook, written: Callable[..., Path]) -> None:
    address = f"http://127.0.0.1:{hook.server_port}"
    target = {"kind": "telegram", "name": "t", "token": TOKEN, "chat_id": -100123, "api_url": address}
    assert notifier(written(target)).send("rolled_back", {"reason": NASTY}) == []
    path, _, document = hook.requests[0]
    assert path == f"/bot{TOKEN}/sendMessage"
    assert document["chat_id"] == "-100123"
    assert document["parse_mode"] == "HTML"
    assert "&lt;b&gt;bold&lt;/b&gt;" in document["text"]
    assert "<" not in document["text"]
    assert document["link_preview_options"] == {"is_disabled": True}


def test_a_webhook_gets_event_facts_and_time(hook: Hook, written: Callable[..., Path]) -> None:
    target = {"kind": "webhook", "name": "w", "url": hook.url}
    assert notifier(written(target)).send("applied", {**FACTS, "seconds": 41.5, "ok": True}) == []
    document = hook.requests[0][2]
    assert document["event"] == "applied"
    assert document["time"] == "2027-01-15T08:00:00+00:00"
    assert document["facts"]["seconds"] == "41.5"
    assert document["facts"]["ok"] == "yes"
    assert document["title"] == "AI Admin on app-1: the switch is made and proven, not yet confirmed"


def test_a_mail_has_clean_headers_and_reaches_every_receiver(
    post: Post, written: Callable[..., Path]
) -> None:
    path = written(email(post), product="AI Admin Ü")
    sent = notifier(path).send("done", {"to": "x\r\nBcc: evil@example.org", "phase": "y"})
    assert sent == []
    [(sender, receivers, mail)] = post.mails
    assert sender == "<ops@example.org>"
    assert receivers == ["<a@example.org>", "<b@example.org>"]
    assert mail["Subject"] == "AI Admin Ü on app-1: the switch is done"
    assert mail["Bcc"] is None
    assert mail["Auto-Submitted"] == "auto-generated"
    assert "Errors go to: x Bcc: evil@example.org" in mail.get_content().splitlines()
    assert mail["Date"].datetime.timestamp() == NOW


def test_a_mail_subject_made_from_facts_stays_one_header(post: Post, written: Callable[..., Path]) -> None:
    path = written(email(post), templates={"gate": "Gate $gate\nText"})
    assert notifier(path).send("gate", {"gate": "a\nBcc: evil@example.org\r\n\r\nbody" + "x" * 5000}) == []
    mail = post.mails[0][2]
    assert len(mail["Subject"]) <= 150
    assert mail["Bcc"] is None


@pytest.mark.parametrize("kind", TRANSPORTS)
@pytest.mark.parametrize("text", ["x", "<&>", "🧀", "*_", "@"])
def test_long_texts_are_cut_to_the_limit_of_the_medium_and_never_within_an_escape(
    kind: str, text: str
) -> None:
    transport = TRANSPORTS[kind]
    cut = clipped(text * 50_000, transport)
    assert transport.limit - 20 < len(cut.encode("utf-16-le")) // 2 <= transport.limit
    assert cut.endswith(" …")
    assert clipped("short", transport) == "short"
    if kind in ("slack", "telegram"):
        assert not cut.removesuffix(" …").rpartition(";")[2].startswith("&") or "&" not in cut
        assert cut.count("&") == cut.count(";")


# ------------------------------------------------------------------ targets that fail


@pytest.mark.parametrize("status", [500, 503, 429])
def test_one_more_try_where_it_may_help(hook: Hook, written: Callable[..., Path], status: int) -> None:
    hook.answers = [(status, {}), (200, {})]
    slept: list[float] = []
    assert notifier(written(slack(hook)), sleep=slept.append).send("done", {}) == []
    assert len(hook.requests) == 2
    assert slept == [0.5]


def test_retry_after_is_waited_for_where_it_fits_the_time(hook: Hook, written: Callable[..., Path]) -> None:
    slept: list[float] = []
    hook.answers = [(429, {"Retry-After": "2"}), (200, {})]
    assert notifier(written(slack(hook)), sleep=slept.append).send("done", {}) == []
    assert slept == [2.0]
    hook.answers = [(429, {"Retry-After": "60"})]
    assert notifier(written(slack(hook)), sleep=slept.append).send("done", {}) == [
        "team (slack) answered 429"
    ]
    assert (slept, len(hook.requests)) == ([2.0], 3)


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (429, 2), (400, 1), (403, 1), (404, 1)])
def test_a_refusal_is_one_sentence_without_the_address(
    hook: Hook, written: Callable[..., Path], status: int, tries: int
) -> None:
    hook.answers = [(status, {})]
    problems = notifier(written(slack(hook)), sleep=lambda _: None).send("done", {})
    assert problems == [f"team (slack) answered {status}"]
    assert len(hook.requests) == tries


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(hook: Hook, written: Callable[..., Path], status: int) -> None:
    with serving(Hook()) as other:
        hook.answers = [(status, {"Location": other.url})]
        assert notifier(written(slack(hook))).send("done", {}) == [f"team (slack) answered {status}"]
        assert other.requests == []


def test_proxies_of_the_environment_are_not_used(
    hook: Hook, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert notifier(written(slack(hook))).send("done", {}) == []
    assert len(hook.requests) == 1


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_dead_target_is_one_sentence(written: Callable[..., Path]) -> None:
    target = {"kind": "slack", "name": "team", "url": f"http://127.0.0.1:{closed_port()}/{SECRET}"}
    problems = notifier(written(target), sleep=lambda _: None).send("done", {})
    assert problems == ["team (slack) cannot be reached: Connection refused"]


@pytest.mark.slow
def test_slow_targets_cost_together_no_more_than_the_time_and_do_not_hold_up_the_others(
    hook: Hook, post: Post, written: Callable[..., Path]
) -> None:
    with serving(Hook()) as slow, socket.create_server(("127.0.0.1", 0)) as silent:
        slow.delay = 30
        mute = {"kind": "email", "name": "mute", "host": "127.0.0.1", "port": silent.getsockname()[1]}
        path = written(
            *(slack(slow, f"slow-{number}") for number in range(5)),
            {**email(post), **mute},
            slack(hook, "good"),
            email(post),
            timeout=3,
        )
        began = time.monotonic()
        problems = notifier(path).send("done", {})
        assert 3 <= time.monotonic() - began < 10
    late = [*(f"slow-{number} (slack)" for number in range(5)), "mute (email)"]
    assert problems == [f"{target} did not answer in time" for target in late]
    assert len(hook.requests) == 1
    assert len(post.mails) == 1


def test_an_untrusted_certificate_is_refused_and_nothing_is_sent(
    certificate: tuple[Path, Path], written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Hook()) as server:
        server.socket = tls(certificate).wrap_socket(server.socket, server_side=True)
        target = {"kind": "slack", "name": "team", "url": f"https://localhost:{server.server_port}/{SECRET}"}
        problems = notifier(written(target), sleep=lambda _: None).send("done", {})
        assert problems == ["team (slack) has a certificate that cannot be trusted: self-signed certificate"]
        assert server.requests == []
        # The control: once the certificate is trusted, the message arrives.
        trusting = ssl.create_default_context(cafile=str(certificate[1]))
        monkeypatch.setattr(ssl, "create_default_context", lambda **_: trusting)
        assert notifier(written(target)).send("done", {}) == []
        assert len(server.requests) == 1


def test_mail_is_encrypted_before_the_password_is_told(
    certificate: tuple[Path, Path], written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Post(tls(certificate))) as server:
        path = written(
            email(server, host="localhost", security="starttls", username="ops-canary", password=PASSWORD)
        )
        problems = notifier(path, sleep=lambda _: None).send("done", {})
        assert problems == ["mail (email) has a certificate that cannot be trusted: self-signed certificate"]
        assert "AUTH" not in server.commands
        context = ssl.create_default_context(cafile=str(certificate[1]))
        monkeypatch.setattr(ssl, "create_default_context", lambda: context)
        assert notifier(path).send("done", {}) == []
        assert server.encrypted == [True]
        assert "AUTH" in server.commands


def test_a_mail_server_without_starttls_gets_nothing(post: Post, written: Callable[..., Path]) -> None:
    path = written(email(post, security="starttls", username="ops-canary", password=PASSWORD))
    assert notifier(path).send("done", {}) == ["mail (email) offers no STARTTLS"]
    assert post.mails == []
    assert "AUTH" not in post.commands


@pytest.mark.parametrize(
    ("verb", "reply", "sentence"),
    [
        ("AUTH", f"535 wrong {PASSWORD}", "refused the user name and password (535)"),
        ("RCPT", "550 no such user", "refused every receiver (550)"),
        ("MAIL", "552 too much", "answered 552"),
        ("DATA", "451 later", "answered 451"),
    ],
)
def test_what_a_mail_server_refuses_is_one_sentence(
    post: Post, written: Callable[..., Path], verb: str, reply: str, sentence: str
) -> None:
    post.replies = {verb: reply}
    path = written(email(post, username="ops-canary", password=PASSWORD))
    assert notifier(path, sleep=lambda _: None).send("done", {}) == [f"mail (email) {sentence}"]


def test_nothing_that_happens_inside_is_ever_raised(
    hook: Hook, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(SECRET)

    path = written(slack(hook))
    with monkeypatch.context() as patch:
        patch.setattr("glitchtip_core.notify.transports.slack.post", broken)
        problems = notifier(path).send("done", {})
        assert problems == ["team (slack) was not told: unexpected ZeroDivisionError"]
    with monkeypatch.context() as patch:
        patch.setattr("glitchtip_core.notify.notifier.compose", broken)
        assert notifier(path).send("done", {}) == ["nobody was told: unexpected ZeroDivisionError"]
    assert notifier(path).send("lunch", {})[0].startswith("there is no event lunch to tell")
    path.chmod(0o644)
    [problem] = notifier(path).send("done", {})
    assert problem == f"{path} holds secrets and may be read by others (mode 644): chmod 600 it"


def test_no_secret_is_ever_told_logged_or_sent_elsewhere(
    hook: Hook,
    post: Post,
    written: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    dead = closed_port()
    targets = [
        slack(hook),
        {"kind": "discord", "name": "d", "url": f"http://127.0.0.1:{dead}/{SECRET}"},
        {
            "kind": "telegram",
            "name": "t",
            "token": TOKEN,
            "chat_id": 1,
            "api_url": f"http://127.0.0.1:{dead}",
        },
        email(post, username="ops-canary", password=PASSWORD),
        {"kind": "webhook", "name": "w", "url": f"http://127.0.0.1:{dead}/{SECRET}"},
    ]
    hook.answers = [(500, {})]
    post.replies = {"AUTH": f"535 {PASSWORD} is wrong"}
    sender = notifier(written(*targets), sleep=lambda _: None)
    problems = sender.send("rolled_back", FACTS)
    assert len(problems) == 5
    settings = sender.settings()
    out, err = capfd.readouterr()
    message, _ = sender.preview("rolled_back", FACTS)
    everything = [
        *problems,
        repr(settings),
        repr(sender.preview("done", {})),
        caplog.text,
        out,
        err,
        message.text,
    ]
    for text in everything:
        for secret in (SECRET, TOKEN, PASSWORD, "ops-canary", str(dead)):
            assert secret not in text
    told = [json.dumps(document) for _, _, document in hook.requests] + [
        str(mail) for _, _, mail in post.mails
    ]
    assert told
    assert not any(secret in text for text in told for secret in (SECRET, TOKEN, PASSWORD))


# ------------------------------------------------------------------ wrong files

GOOD = {"kind": "slack", "name": "team", "url": "https://hooks.slack.com/services/x"}
MAIL = {
    "kind": "email",
    "name": "m",
    "host": "mail.example.org",
    "from": "a@example.org",
    "to": ["b@example.org"],
}
CHAT = {"kind": "telegram", "name": "t", "token": TOKEN, "chat_id": "@ops"}


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "must be a JSON object"),
        ({}, "targets must be a list"),
        ({"targets": [], "target": 1}, "target is not known here"),
        ({"targets": ["x"]}, "targets[0] must be a JSON object"),
        ({"targets": [{**GOOD, "kind": "pager"}]}, "targets[0]: kind must be one of discord, email, slack"),
        (
            {"targets": [{"kind": "slack", "name": "x"}]},
            "targets[0]: url is missing, a target of kind slack needs it",
        ),
        ({"targets": [{**GOOD, "token": "x"}]}, "targets[0]: token is not known here"),
        ({"targets": [{"kind": "slack", "url": GOOD["url"]}]}, "targets[0]: name must be a text of one line"),
        ({"targets": [GOOD, GOOD]}, "two targets are called team"),
        ({"targets": [{**GOOD, "events": ["lunch"]}]}, "targets[0]: events must be a list of start"),
        ({"targets": [{**GOOD, "events": []}]}, "targets[0]: events must be a list of start"),
        (
            {"targets": [{**GOOD, "url": "hooks.slack.com/x"}]},
            "url must be an address that begins with https://",
        ),
        ({"targets": [{**GOOD, "url": "http://hooks.slack.com/x"}]}, "url must begin with https://"),
        (
            {"targets": [{**GOOD, "url": "https://u:p@hooks.slack.com/x"}]},
            "url must hold no user name or password",
        ),
        ({"targets": [{**GOOD, "url": "https://h:99999/x"}]}, "url must be an address"),
        ({"targets": [{**CHAT, "token": "x"}]}, "token is not a bot token"),
        ({"targets": [{**CHAT, "chat_id": "two words"}]}, "chat_id must be a number or @channel"),
        ({"targets": [{**MAIL, "to": []}]}, "to must be a list of addresses"),
        ({"targets": [{**MAIL, "to": ["x\nBcc: y@z"]}]}, "from and to must be mail addresses"),
        ({"targets": [{**MAIL, "security": "ssl"}]}, "security must be starttls, tls or none"),
        ({"targets": [{**MAIL, "port": "25"}]}, "port must be a number from 1 to 65535"),
        ({"targets": [{**MAIL, "username": "x"}]}, "username and password belong together"),
        (
            {"targets": [{**MAIL, "security": "none", "username": "x", "password": PASSWORD}]},
            "the password would cross the network unencrypted",
        ),
        ({"targets": [], "templates": {"lunch": "x"}}, "templates.lunch is for no event"),
        (
            {"targets": [], "templates": {"done": "costs $5"}},
            "templates.done must be a text in which $ begins",
        ),
        ({"targets": [], "templates": {"done": " "}}, "templates.done must be a text"),
        ({"targets": [], "timeout": 0}, "timeout must be a number of seconds from 0.1 to 30"),
        ({"targets": [], "timeout": True}, "timeout must be a number"),
        ({"targets": [], "contact": "two\nlines"}, "contact must be a text of one line"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence(document: Any, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(document, "/etc/notify.json")
    assert str(caught.value).startswith("/etc/notify.json")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "hooks.slack.com/" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_file_that_others_may_read_is_refused(written: Callable[..., Path], mode: int) -> None:
    path = written(GOOD)
    path.chmod(mode)
    with pytest.raises(CoreError, match=f"may be read by others \\(mode {mode:o}\\)"):
        notifier(path).settings()


def test_a_missing_damaged_or_odd_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CoreError, match="there is no file of notifications"):
        notifier(tmp_path / "gone").settings()
    (tmp_path / "damaged").write_text("{")
    (tmp_path / "damaged").chmod(0o600)
    with pytest.raises(CoreError, match="cannot be read: JSONDecodeError"):
        notifier(tmp_path / "damaged").settings()


# ------------------------------------------------------------------ announce


class Known:
    """The two fields of a configuration that are used."""

    migration_id = "m-1"

    def __init__(self, notify_file: Path | None) -> None:
        self.notify_file = notify_file


def test_a_dry_run_says_what_would_be_told_to_whom_and_sends_nothing(
    hook: Hook, written: Callable[..., Path]
) -> None:
    config: Any = Known(written(slack(hook), slack(hook, "other", events=["done"])))
    result = announce(config, "start", {"phase": "phase 4"}, dry_run=True)
    assert (result["changed"], result["would_change"]) == (False, True)
    assert result["targets"] == [{"name": "team", "kind": "slack"}]
    assert "Step: phase 4" in result["text"]
    assert hook.requests == []
    assert SECRET not in json.dumps(result)


def test_announce_tells_who_was_not_reached(hook: Hook, written: Callable[..., Path]) -> None:
    config: Any = Known(written(slack(hook)))
    assert announce(config, "start", {})["changed"] is True
    hook.answers = [(403, {})]
    result = announce(config, "start", {})
    assert (result["changed"], result["problems"]) == (False, ["team (slack) answered 403"])
    assert announce(Known(None), "start", {})["targets"] == []  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no event lunch"):
        announce(config, "lunch", {})


def test_facts_of_the_command_line_have_names() -> None:
    assert parse_facts(["gate=soak", "reason=a=b"]) == {"gate": "soak", "reason": "a=b"}
    for wrong in ("gate", "=x", "Gate=x", "a-b=x"):
        with pytest.raises(UsageError, match="KEY=VALUE"):
            parse_facts([wrong])
