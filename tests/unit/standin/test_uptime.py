"""The stand-in's uptime: which second a monitor is due in, and the mail that a contract rule cannot see."""

from __future__ import annotations

import pytest
from standin import uptime


def monitor(number, interval):
    return {"id": number, "interval": interval, "timeout": 20}


def due(monitors, tick):
    return [[row["id"] for row in batch] for batch in uptime.buckets(monitors, tick)]


def test_a_monitor_of_a_second_is_due_in_each_and_one_of_seven_when_seven_divides_it():
    assert due([monitor(1, 1), monitor(2, 7)], 20) == [[1], [1, 2], *[[1]] * 6, [1, 2], [1]]


def test_seconds_in_which_nothing_is_due_are_left_out():
    assert due([monitor(1, 5), monitor(2, 60)], 60) == [[1, 2], [1]]
    assert due([monitor(2, 60)], 70) == []


def test_an_interval_of_0_ends_the_run():
    with pytest.raises(ZeroDivisionError):
        uptime.buckets([monitor(1, 1), monitor(2, 0)], 20)


@pytest.mark.parametrize(
    ("up", "reason", "subject", "shown"),
    [
        (False, 2, "GlitchTip: site is down", "Wrong status code"),
        (False, 0, "GlitchTip: site is down", None),  # the real server leaves "Unknown" out
        (True, None, "GlitchTip: site is back up", None),
    ],
)
def test_a_recipient_by_mail_is_told_in_the_subject(monkeypatch, up, reason, subject, shown):
    sent = []
    found = {"id": 3, "name": "site", "project_id": 10, "organization_slug": "acme"}
    monkeypatch.setattr(uptime.db, "one", lambda *_: found)
    rows = iter([[{"recipient_type": "email", "url": ""}], [{"email": "a@example.org"}]])
    monkeypatch.setattr(uptime.db, "rows", lambda *_: next(rows))
    settings = type("Settings", (), {"domain": "https://e.example.org"})
    monkeypatch.setattr(uptime.state, "get", lambda: type("State", (), {"settings": settings}))
    monkeypatch.setattr(uptime.mail, "send", lambda to, title, **more: sent.append((to, title, more)))
    uptime.notify({"monitor": 3, "up": up, "reason": reason, "start": "2026-11-21T02:00:00+00:00"})
    ((people, title, more),) = sent
    assert (people, title, more.get("reason")) == (["a@example.org"], subject, shown)
    assert more["link"] == "https://e.example.org/acme/uptime-monitors/3"
