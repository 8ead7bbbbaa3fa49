"""Whatever somebody puts into a name, a title or an answer, nothing of it acts on a terminal, a journal or a chat."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import glitchtip_api.errors
from glitchtip_api import GlitchTipError
from glitchtip_api.ansible_support import printable_sentences
from glitchtip_core import text
from glitchtip_core.http import Answer
from glitchtip_core.notify import transport
from glitchtip_core.notify.notifier import Notifier
from glitchtip_core.notify.throttle import Decision
from glitchtip_core.notify.transports import TRANSPORTS, webhook
from glitchtip_core.process import Completed
from glitchtip_core.text import (
    guarded_output,
    printable,
    printable_document,
    printable_lines,
    printable_module,
)
from glitchtip_cutover import cli as cutover
from glitchtip_cutover.announce import CATALOGUE
from glitchtip_cutover.errors import CutoverError, IncompleteError
from glitchtip_cutover.findings import make_finding
from glitchtip_ops import cli as ops
from glitchtip_ops.local_test.report import _cell
from glitchtip_ops.monitor import Check, Hooks, message_of
from glitchtip_ops.parity.reporting import cell
from glitchtip_ops.process import OpsError
from glitchtip_ops.report.chart import text as html_text
from glitchtip_ops.report.markdown import plain
from glitchtip_ops.sentry_checklist import _line

ROOT = Path(__file__).resolve().parents[3]
NASTY = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "a\rb", "a\r\nb", "\x7f\x08\x08", "\u202egnp.exe", "\u2066x\u2069", "\ufeff\U000e0067",
    "\ud800", "\u2028", "\x85", "\U000e0041", "<!channel>", "<!subteam^S1|x>", "<@U123>", "<#C1>", "@everyone", "@here @channel @All",
    "x\n<!here>\n@EVERYONE", "`<!channel>`", "[a](http://b) @everyone", "&lt;!channel&gt;", "Ж ё ü 日本語 👩‍👩‍👧 ok",
)  # fmt: skip
SIGNS = st.one_of(st.characters(), st.sampled_from("\x1b\x9b\x07\r\n\t\u202a\u202e\u2066\u2069\u200f\x85<>!@#&"))
TEXTS = st.lists(st.one_of(st.sampled_from(NASTY), st.text(SIGNS, max_size=12)), max_size=4).map("".join)
#: Enough to find a gap in a class of characters; the gate is not to wait for more.
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


#: England, Scotland, Wales.
FLAGS = [
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(sign)) for sign in f"gb{name}") + "\U000e007f" for name in ("eng", "sct", "wls")
]


def bad_signs(shown: str) -> set[str]:
    """What must not reach a terminal. Written down anew here, by Unicode's own classes."""
    for flag in FLAGS:
        shown = shown.replace(flag, "")
    return {
        sign
        for sign in shown
        if (unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in "\n\t")
        or unicodedata.bidirectional(sign) in TURNS
        or 0xE0000 <= ord(sign) < 0xE0080
    }


def mentions(shown: str) -> list[str]:
    """What Slack, Discord and Telegram read as a call of everybody, or of somebody."""
    return re.findall(r"(?<!\\)<[!@#&][^>]*>|@(?:everyone|here|channel|all)\b", shown, re.IGNORECASE)


def leaves(value: Any) -> list[str]:
    """Every text of a document, names of fields as well."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (key, *leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    return [value] if isinstance(value, str) else []


def assert_printed_well(streams: tuple[str, str], *, document: bool = False) -> None:
    """Neither stream holds anything bad; nor does the document on standard output, once it is decoded."""
    assert bad_signs("".join(streams)) == set()
    if document and streams[0]:
        assert bad_signs("".join(leaves(json.loads(streams[0])))) == set()


# ------------------------------------------------------------------ the rule


@FEW
@given(TEXTS)
@example("".join(map(chr, range(0x3000))))
@example("".join(map(chr, [*range(0xD800, 0xE000), 0xFEFF, *range(0xE0000, 0xE0080)])))
def test_nothing_of_a_text_acts_on_a_terminal(given_text: str) -> None:
    assert bad_signs(printable(given_text)) == set()
    assert not set("\n\t\r") & set(printable(given_text))
    assert bad_signs(printable_lines(given_text)) == set()
    assert len(printable(given_text)) == len(given_text)
    assert printable(printable(given_text)) == printable(given_text)


def test_words_of_all_languages_and_emoji_stay() -> None:
    told = "Grüße, Привет, 日本語, שלום, مرحبا, नमस्ते, 👩\u200d👩\u200d👧, naïve — “quoted”, 5 €, \u00a0x"
    assert printable(told) == told
    assert printable_lines("a\n\tb\r\nc") == "a\n\tb\nc"


def test_flags_made_of_tags_and_marks_of_direction_stay() -> None:
    told = " ".join(FLAGS) + " שלום\u200f! \u200eabc \u061c٪"
    assert printable(told) == told
    assert printable_lines(told) == told
    assert told in str(GlitchTipError(detail=told))


@pytest.mark.parametrize("spoiled", [FLAGS[0][1:], FLAGS[0][:-1], FLAGS[0][:3] + FLAGS[0], "\U0001f3f4\U000e0078\U000e007f"])
def test_other_tags_go(spoiled: str) -> None:
    """The control: a hidden text in tags, which people do not see and programs read."""
    assert bad_signs(spoiled) != set()
    assert bad_signs(printable(spoiled)) == set()
    assert printable(spoiled) != spoiled


def test_the_control_finds_what_is_bad_and_who_is_called() -> None:
    assert all(bad_signs(one) or mentions(one) for one in NASTY[:-2])
    assert bad_signs(NASTY[-1]) == set()


def test_the_client_has_the_same_rule() -> None:
    """It stands alone and cannot import the shared package."""
    assert glitchtip_api.errors._UNPRINTABLE.pattern == text._UNPRINTABLE.pattern


# ------------------------------------------------------------------ exits of the commands


@pytest.fixture
def printed(capfd: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """Both streams since the last call."""
    return lambda: tuple(capfd.readouterr())


def run_cutover(monkeypatch: pytest.MonkeyPatch, outcome: dict[str, Any] | Exception, *more: str) -> int:
    """A command whose work ends like that, and which reports progress on the way."""

    def execute(_config: Any, _arguments: Any, progress: Callable[[str], None]) -> dict[str, Any]:
        told = outcome.get("note", "") if isinstance(outcome, dict) else str(outcome)
        progress(told)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(cutover, "_configuration", lambda _arguments: None)
        patch.setattr(cutover, "_execute", execute)
        patch.setattr(cutover.signal, "signal", lambda *_: None)
        return cutover.main(["status", *more])


@FEW
@given(TEXTS, st.sampled_from(((), ("--json",))))
def test_the_switch_prints_nothing_that_acts(
    monkeypatch: pytest.MonkeyPatch, printed: Callable[[], tuple[str, str]], told: str, more: tuple[str, ...]
) -> None:
    for outcome in (
        {"changed": False, "note": told, told: 1, "problems": [told], "notes": [told], "services": [{"name": told}], "unproven": [told]},
        CutoverError(told),
        IncompleteError(told, {"problems": [told]}),
        ValueError(told),
    ):
        run_cutover(monkeypatch, outcome, *more)
        assert_printed_well(printed(), document="--json" in more)


@FEW
@given(TEXTS)
def test_wrong_arguments_are_shown_without_what_acts(printed: Callable[[], tuple[str, str]], told: str) -> None:
    for main, argv in ((cutover.main, ["apply", "--to", told]), (cutover.main, [told]), (ops.main, [told])):
        with pytest.raises(SystemExit):
            main(argv)
        assert_printed_well(printed())


@FEW
@given(TEXTS, st.booleans())
def test_the_tools_print_nothing_that_acts(
    monkeypatch: pytest.MonkeyPatch, printed: Callable[[], tuple[str, str]], told: str, as_json: bool
) -> None:
    def refused(error: Exception) -> Callable[[Any], ops.Outcome]:
        def handler(_options: Any) -> ops.Outcome:
            raise error

        return handler

    handlers: list[Callable[[Any], ops.Outcome]] = [
        lambda _options: ops.Outcome({"title": told, told: [told]}, [told, f"  {told}"]),
        refused(OpsError(told)),
        refused(GlitchTipError(detail=told)),
    ]
    for handler in handlers:
        parsed = type("Options", (), {"handler": staticmethod(handler), "json": as_json})()
        with monkeypatch.context() as patch:
            patch.setattr(ops, "build_parser", lambda parsed=parsed: type("P", (), {"parse_args": lambda *_: parsed})())
            ops.main([])
        assert_printed_well(printed(), document=as_json)


def test_a_traceback_passes_the_guard_and_the_streams_are_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    with guarded_output():
        print("\x1b[31m")
        sys.stderr.write("\u202e\n")
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ("?[31m\n", "?\n")
    try:
        with pytest.raises(ZeroDivisionError), guarded_output():
            raise ZeroDivisionError
        sys.stderr.write("\x1b")
        assert capsys.readouterr().err == "?"
    finally:
        sys.stdout, sys.stderr = streams
    print("\x1b", end="")
    assert capsys.readouterr().out == "\x1b", "the control: without the guard it reaches the terminal"


def test_a_stream_of_another_encoding_takes_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with guarded_output():
            print("ä\x1b日\ud800")
            print("x", end="", flush=True)
    assert (tmp_path / "out").read_text() == "????\nx"


def test_every_command_prints_through_the_guard() -> None:
    """Both commands have one way in, and nothing writes past the two streams."""
    for package in ("glitchtip_cutover", "glitchtip_ops"):
        source = (ROOT / "src" / package / "cli.py").read_text()
        main = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "main")
        assert isinstance(main.body[-1], ast.With)
        assert ast.unparse(main.body[-1].items[0].context_expr) == "guarded_output()"
    past = re.compile(r"std(out|err)\.buffer|__std(out|err)__|os\.write\([12]\b|sys\.excepthook|/dev/tty|/dev/stderr|/dev/stdout")
    found = [path for path in (ROOT / "src").rglob("*.py") if past.search(path.read_text())]
    assert found == []
    assert past.search("sys.stdout.buffer.write(x)"), "the control"


# ------------------------------------------------------------------ modules and filters of Ansible


class Module:
    """Keeps what a module of Ansible would print."""

    def __init__(self) -> None:
        self.left: list[Any] = []

    def exit_json(self, **result: Any) -> None:
        self.left.append(result)

    def fail_json(self, msg: str, **result: Any) -> None:
        self.left.append({"msg": msg, **result})

    def warn(self, warning: str) -> None:
        self.left.append(warning)


@FEW
@given(TEXTS)
def test_a_module_leaves_nothing_that_acts(told: str) -> None:
    module = printable_module(Module())
    module.exit_json(changed=False, problems=[told], row={told: {"name": told}}, number=1, pair=(told, 2))
    module.fail_json(told, detail=told)
    module.fail_json(msg=told)
    module.warn(told)
    assert bad_signs("".join(leaves(module.left))) == set()
    assert module.left[0]["number"] == 1


@FEW
@given(TEXTS)
def test_a_module_of_the_api_says_nothing_that_acts(told: str) -> None:
    module = printable_sentences(Module())
    objects = [{"name": told}]
    result = {"plan_text": [told], "diff": {"prepared": f"{told}\n"}, "unmanaged": [told], "objects": objects}
    module.exit_json(changed=True, msg=told, **result)
    module.fail_json(msg=told, complaints=[told], **result)
    module.warn(told)
    for left in module.left[:2]:
        assert left.pop("objects") == objects, "what the server has stays as it is"
    assert bad_signs("".join(leaves(module.left))) == set()


def test_every_module_that_quotes_this_host_leaves_through_the_guard() -> None:
    """The modules of the API return what the server has, character by character; their sentences are GlitchTipError's."""
    unguarded = {
        path.stem
        for path in sorted((ROOT / "library").glob("*.py"))
        if "AnsibleModule(" in path.read_text() and "printable_module(module)" not in path.read_text()
    }
    own = {path.stem for path in (ROOT / "library").glob("glitchtip_*.py")}
    assert unguarded <= own
    assert len(own) < len(list((ROOT / "library").glob("*.py")))


@FEW
@given(TEXTS)
def test_sentences_about_a_server_a_program_and_a_file_are_one_line(told: str) -> None:
    spec = importlib.util.spec_from_file_location("command_output", ROOT / "filter_plugins" / "command_output.py")
    assert spec is not None
    assert spec.loader is not None
    filters = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(filters)
    error = GlitchTipError("GET", f"/api/0/{told}/", 500, detail=told, hint=told)
    for sentence in (
        str(error),
        *leaves(error.as_dict()),
        Completed(1, "", told).complaint,
        make_finding(told, 1, told, told, told, told).text,
        filters.command_reason({"stderr": told, "rc": 1}),
        filters.command_reason({"stdout": json.dumps({"reason": told})}),
        filters.command_reason({"msg": told}),
        _line(told),
    ):
        assert bad_signs(sentence) == set()
        assert "\n" not in sentence


# ------------------------------------------------------------------ chats, pages, tickets


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that a transport sends, as its receiver decodes it."""
    texts: list[str] = []

    class Post:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __enter__(self) -> Post:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def send_message(self, mail: Any, *_: Any) -> dict[str, Any]:
            texts.extend(str(value) for value in mail.values())
            head = bytes(mail).partition(b"\n\n")[0].decode("ascii")
            assert set(re.findall(r"(?m)^([!-9;-~]+):", head)) == set(mail.keys())
            texts.append(mail.get_content())
            return {}

    def request(_url: str, *, body: bytes, **_: Any) -> Answer:
        texts.extend(leaves(json.loads(body)))
        return Answer(200, {}, b"")

    monkeypatch.setattr(transport, "request", request)
    monkeypatch.setattr("glitchtip_core.notify.transports.email.smtplib.SMTP", Post)
    return texts


TARGETS: tuple[dict[str, Any], ...] = (
    {"kind": "slack", "url": "https://h.example.org/x"},
    {"kind": "discord", "url": "https://h.example.org/x"},
    {"kind": "webhook", "url": "https://h.example.org/x"},
    {"kind": "telegram", "token": "1:a", "chat_id": 1},
    {"kind": "email", "host": "localhost", "security": "none", "from": "a@example.org", "to": ["b@example.org"]},
)


@FEW
@given(TEXTS)
def test_no_message_calls_anybody_or_acts(tmp_path: Path, sent: list[str], told: str) -> None:
    path = tmp_path / "notify.json"
    template = "$host $reason $gate\n$reason $gate"
    facts = {"reason": told, "gate": {"name": told}, "passed": True, "problems": [told, told]}
    for target in TARGETS:
        del sent[:]
        path.write_text(json.dumps({"targets": [{**target, "name": "t"}], "templates": {"gate": template}, "timeout": 30}))
        path.chmod(0o600)
        assert Notifier(path, CATALOGUE, host=told).send("gate", facts) == []
        assert sent
        assert bad_signs("".join(sent)) == set()
        assert target["kind"] == "email" or mentions("\n".join(sent)) == []  # a mail calls nobody
    assert {target["kind"] for target in TARGETS} == set(TRANSPORTS)


OWN = {
    "slack": ("<!channel>", "ops@example.org", "<@U1>"),
    "discord": ("@everyone", "<@123>", "ops@example.org"),
    "telegram": ("@anna", "ops@example.org"),
    "webhook": ("<!channel>", "@here", "ops@example.org"),
    "email": ("ops@example.org",),
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["kind"])
def test_what_the_file_of_notifications_says_itself_calls_whom_it_names(
    tmp_path: Path, sent: list[str], target: dict[str, Any]
) -> None:
    """Mentions of facts are broken in the very same message."""
    path, own = tmp_path / "notify.json", OWN[target["kind"]]
    template = f"$host {own[0]} $gate\n{' '.join(own[1:])}, call $contact\n@$reason"
    given_file = {"targets": [{**target, "name": "t"}], "templates": {"gate": template}, "contact": "Anna, anna@example.org"}
    path.write_text(json.dumps(given_file))
    path.chmod(0o600)
    facts = {"gate": {"name": "<!everyone> @channel bob@example.org @annabel"}, "reason": "all"}
    assert Notifier(path, CATALOGUE, host="h").send("gate", facts) == []
    told = "\n".join(sent)
    for word in (*own, "anna@example.org"):
        assert word in told
    if target["kind"] != "email":
        assert [found for found in mentions(told) if found not in own] == []
        assert "@annabel" not in told or target["kind"] == "webhook"  # its rule is about words that call everybody


def test_a_word_that_a_fact_is_a_part_of_is_no_word_of_ones_own() -> None:
    assert text.calls_in("<@$user> @$host $who@example.org @here, (a@b.org)") == ("@here", "a@b.org")
    assert text.with_calls("@herex @here x@here", text.escape_slack, ("@here",)).count("@here") == 1, "whole words alone"


@FEW
@given(TEXTS)
@example(NASTY[0])
def test_no_alert_of_the_monitoring_calls_anybody_or_acts(tmp_path: Path, sent: list[str], told: str) -> None:
    del sent[:]
    kept = tmp_path / "kept"
    command = (sys.executable, "-c", f"import sys; open({str(kept)!r}, 'w').write(sys.stdin.read())")
    checks = [Check("disk", False, told), Check(told, True, told)]
    alert = message_of(Decision((checks[0],), (checks[1],), {}, {}), "host1", datetime.fromtimestamp(0, UTC))
    Hooks("https://h.example.org/x", command if told == NASTY[0] else ()).deliver(alert)
    assert bad_signs("".join(sent)) == set()
    assert mentions("\n".join(sent)) == []
    if kept.exists():
        assert bad_signs("".join(leaves(json.loads(kept.read_text())))) == set()


@FEW
@given(TEXTS)
def test_no_page_and_no_ticket_calls_anybody_or_acts(told: str) -> None:
    for shown in (cell(told), plain(told), _cell(told)):
        assert bad_signs(shown) == set()
        assert mentions(shown) == []
        assert "\n" not in shown
    assert bad_signs(html_text(told)) == set()
    assert "<" not in html_text(told)


def test_control_without_the_guards_everything_comes_through(
    monkeypatch: pytest.MonkeyPatch, printed: Callable[[], tuple[str, str]]
) -> None:
    told = "\x1b[31m\u202e <!channel> @everyone"
    monkeypatch.setattr(cutover, "guarded_output", contextlib.nullcontext)
    monkeypatch.setattr(cutover, "printable_document", lambda document: document)
    run_cutover(monkeypatch, CutoverError(told))
    assert bad_signs(printed()[1]) == {"\x1b", "\u202e"}
    module = Module()
    module.fail_json(told)
    assert bad_signs("".join(leaves(module.left))) == {"\x1b", "\u202e"}
    assert mentions(transport.clipped(told, TRANSPORTS["slack"])) == []
    raw = replace(TRANSPORTS["slack"], escape=str)
    assert mentions(transport.clipped(told, raw)) == ["<!channel>", "@everyone"]
    assert mentions(webhook._harmless(told)) == []


def test_a_document_keeps_its_shape() -> None:
    document = {"a": [1, 2.5, None, True, "x\x1b"], "b\x07": {"c": ("y\n",)}}
    assert printable_document(document) == {"a": [1, 2.5, None, True, "x?"], "b?": {"c": ["y\n"]}}
