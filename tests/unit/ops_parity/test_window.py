"""A window that makes no sense is one sentence."""

from __future__ import annotations

import pytest

from glitchtip_ops.parity.window import epoch, iso, parse_window
from glitchtip_ops.process import OpsError

NOW = 1_700_000_000.7


def test_a_span_ends_a_margin_before_now() -> None:
    """What is still on its way is no loss."""
    window = parse_window("24h", None, NOW, 60)
    assert (window.since, window.until) == (1_699_999_940 - 86400, 1_699_999_940)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    """And an end long ago needs no margin."""
    window = parse_window("2023-11-14T20:00:00", "2023-11-14T23:00:00+02:00", NOW, 60)
    assert (iso(window.since), iso(window.until)) == ("2023-11-14T20:00:00Z", "2023-11-14T21:00:00Z")
    assert epoch("2023-11-14T22:13:20.5Z") == 1_700_000_000.5


@pytest.mark.parametrize(
    ("since", "until", "margin", "sentence"),
    [
        ("yesterday", None, 60, "neither a span"),
        ("", None, 60, "neither a span"),
        ("0h", None, 60, "no span"),
        ("24h", "tomorrow", 60, "is no time"),
        ("24h", "2099-01-01T00:00:00Z", 60, "lies in the future"),
        ("2099-01-01T00:00:00Z", None, 60, "lies in the future"),
        ("2023-11-14T22:00:00Z", "2023-11-14T21:00:00Z", 60, "window is empty"),
        ("30s", "2023-11-14T22:13:10Z", -1, "--margin"),
        ("2023-11-14T22:13:00Z", None, 60, "window is empty"),
    ],
)
def test_nonsense_is_one_sentence(since: str, until: str | None, margin: int, sentence: str) -> None:
    """What, where, what to do."""
    with pytest.raises(OpsError, match=sentence):
        parse_window(since, until, NOW, margin)
