"""The sample product's ledger: what "nothing was lost" is counted from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ai_admin.ledger import LedgerError, main, parse_ledger, read_ledger


def line(event_id: str, state: str, **more: Any) -> str:
    entry = {
        "at": "2026-11-21T04:43:26.771Z",
        "service": "ai-admin-api",
        "event_id": event_id,
        "state": state,
    }
    return json.dumps({**entry, **more}) + "\n"


OLD = {"status": 200, "host": "sentry.example.org"}
NEW = {"status": 200, "host": "127.0.0.1"}


def test_every_state_is_counted_once() -> None:
    """Acknowledged by whom, refused, and not answered."""
    text = "".join(line(name, "captured") for name in "abcd")
    text += line("a", "acknowledged", **OLD) + line("b", "acknowledged", **NEW)
    text += line("c", "refused", status=None, host="127.0.0.1")
    ledger = parse_ledger(text)
    assert ledger.captured.keys() == set("abcd")
    assert ledger.acknowledged_by("sentry.example.org") == {"a"}
    assert ledger.acknowledged_by("127.0.0.1") == {"b"}
    assert ledger.refused.keys() == {"c"}
    assert ledger.unanswered == {"d"}
    assert ledger.services() == {"ai-admin-api": 4}


@pytest.mark.parametrize("order", [("refused", "acknowledged"), ("acknowledged", "refused")])
def test_an_acknowledgement_outweighs_a_refusal(order: tuple[str, str]) -> None:
    """Whichever came first: the tracker has it."""
    ledger = parse_ledger(line("a", "captured") + "".join(line("a", state, **OLD) for state in order))
    assert ledger.acknowledged.keys() == {"a"}
    assert not ledger.refused


def test_a_line_that_is_being_written_is_left_out() -> None:
    """Without its newline the last line is not there yet."""
    assert parse_ledger(line("a", "captured") + line("b", "captured")[:-9]).captured.keys() == {"a"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (line("a", "captured") + "garbage\n", "line 2 is not a ledger entry"),
        (line("a", "captured") * 2, "event a was captured twice"),
        (line("a", "lost"), "unknown state 'lost'"),
        ("[]\n", "line 1 is not a ledger entry"),
    ],
)
def test_a_ledger_that_cannot_be_trusted_is_refused(text: str, complaint: str) -> None:
    """A count from a damaged ledger would be a guess."""
    with pytest.raises(LedgerError, match=complaint):
        parse_ledger(text)


def test_no_file_is_no_empty_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would count as "nothing was lost"; the command says one sentence and ends with 1."""
    missing = tmp_path / "ledger.jsonl"
    with pytest.raises(LedgerError, match="cannot be read"):
        read_ledger(missing)
    assert main(["ledger.py", str(missing)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
