"""Counting both legs of the mirror: windows, rotated and torn files, and what the command says."""

from __future__ import annotations

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from glitchtip_ops import cli
from glitchtip_ops import mirror as module
from glitchtip_ops.mirror import count, quantile, read_counts, read_legs
from glitchtip_ops.process import OpsError

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
EVER = (START - timedelta(days=9), START + timedelta(days=9))


def leg(name, second, *, status="200", upstream="200", took="0.010"):
    at = START.timestamp() + second
    return {"at": at, "leg": name, "status": status, "upstream_status": upstream, "upstream_time": took}


def write(path, legs, end="\n"):
    path.write_text("\n".join(json.dumps(one) for one in legs) + end)
    if legs:
        os.utime(path, (legs[-1]["at"], legs[-1]["at"]))


def both(first, last):
    return [leg(name, second) for second in range(first, last) for name in ("glitchtip", "sentry")]


def test_a_leg_is_ok_when_the_tracker_said_2xx_and_skipped_when_it_was_nobodys():
    found = count(
        [
            leg("sentry", 0),
            leg("sentry", 1, status="429", upstream="429"),
            leg("sentry", 2, status="502", upstream="502", took="-"),
            leg("sentry", 3, upstream="502, 200", took="0.001, 0.029"),
            leg("glitchtip", 0),
            leg("glitchtip", 1, status="504", upstream="504", took="2.000"),
            leg("glitchtip", 2, status="503", upstream="", took=""),
            leg("glitchtip", 3, status="204", upstream="", took=""),
            leg("glitchtip", 4, status="204", upstream="204"),
            leg("sentry_only", 5),
        ]
    )
    assert found["sentry"] == {"sent": 4, "ok": 2, "failed": 2}
    assert found["glitchtip"] == {"sent": 4, "ok": 2, "failed": 2, "skipped": 1}
    assert found["seconds"] == {
        "sentry_p50": 0.01,
        "sentry_p95": 0.03,
        "glitchtip_p50": 0.01,
        "glitchtip_p95": 2.0,
    }


def test_of_nothing_there_are_no_seconds():
    assert set(count([])["seconds"].values()) == {None}
    assert quantile([], 0.5) is None


def test_rotated_packed_and_torn_files_are_read_and_each_leg_once(tmp_path):
    with gzip.open(tmp_path / "mirror.jsonl.2.gz", "wt") as packed:
        packed.write("\n".join(json.dumps(one) for one in both(0, 10)) + "\n")
    write(tmp_path / "mirror.jsonl.1", both(10, 20))
    write(tmp_path / "mirror.jsonl", both(20, 30), end='\n{"at":1763715600.1,"leg":"sen')
    (tmp_path / "other.jsonl").write_text(json.dumps(leg("sentry", 1)))
    found = read_counts(*EVER, log_dir=tmp_path)
    assert found["sentry"]["sent"] == found["glitchtip"]["sent"] == 30


def test_a_file_that_was_packed_a_moment_ago_is_not_read_twice(tmp_path):
    write(tmp_path / "mirror.jsonl.1", both(0, 10))
    with gzip.open(tmp_path / "mirror.jsonl.1.gz", "wt") as packed:
        packed.write((tmp_path / "mirror.jsonl.1").read_text())
    assert read_counts(*EVER, log_dir=tmp_path)["sentry"]["sent"] == 10


def test_a_packed_file_that_is_cut_gives_what_it_holds(tmp_path):
    data = gzip.compress("\n".join(json.dumps(one) for one in both(0, 400)).encode())
    (tmp_path / "mirror.jsonl.2.gz").write_bytes(data[: len(data) // 2])
    assert 0 < read_counts(*EVER, log_dir=tmp_path)["sentry"]["sent"] < 400


def test_windows_that_follow_each_other_count_each_leg_once(tmp_path):
    write(tmp_path / "mirror.jsonl", both(0, 100))
    marks = [START + timedelta(seconds=second) for second in (0, 7, 50, 50.5, 99, 100)]
    parts = [
        read_counts(since, until, log_dir=tmp_path)["sentry"]["sent"] for since, until in pairwise(marks)
    ]
    assert parts == [7, 43, 1, 48, 1]
    assert sum(parts) == 100


def test_a_window_in_a_large_file_is_found_without_reading_what_is_before(tmp_path, monkeypatch):
    write(tmp_path / "mirror.jsonl", both(0, 20000))
    parsed = []
    real = module._parse

    def counting(line):
        parsed.append(line)
        return real(line)

    monkeypatch.setattr(module, "_parse", counting)
    since = START + timedelta(seconds=19000)
    until = START + timedelta(seconds=19010)
    assert len(list(read_legs(since, until, tmp_path))) == 20
    assert len(parsed) < 8000


def test_a_leg_that_a_leaving_worker_wrote_late_is_counted(tmp_path):
    legs = both(0, 5000)
    legs.insert(9000, leg("sentry", 4495.5))
    write(tmp_path / "mirror.jsonl", legs)
    since = START + timedelta(seconds=4495.2)
    assert len(list(read_legs(since, since + timedelta(seconds=0.5), tmp_path))) == 1


def test_lines_of_others_are_passed_over(tmp_path):
    lines = [
        "",
        "nonsense",
        "[1]",
        '{"at":"x","leg":"sentry"}',
        '{"at":1}',
        "\x00\x00",
        json.dumps(leg("sentry", 1)),
    ]
    (tmp_path / "mirror.jsonl").write_text("\n".join(lines) + "\n")
    assert read_counts(*EVER, log_dir=tmp_path)["sentry"]["sent"] == 1


def test_where_there_is_no_mirror_there_are_no_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    assert read_counts(*EVER) is None


def test_a_mirror_without_its_log_is_one_sentence(tmp_path):
    with pytest.raises(OpsError, match="there is no log of the mirror"):
        read_counts(*EVER, log_dir=tmp_path / "none")


# ---------------------------------------------------------------------------------------------- the command


@pytest.fixture
def installed(tmp_path, monkeypatch):
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    (tmp_path / "mirror.json").write_text(
        json.dumps({"listen": "http://127.0.0.1:9", "log_dir": str(tmp_path / "log")})
    )
    (tmp_path / "log").mkdir()
    write(tmp_path / "log/mirror.jsonl", both(0, 10))
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_the_counts_of_a_window_are_printed_for_people_and_for_programs(capsys):
    window = ["--since", START.isoformat(), "--until", (START + timedelta(seconds=5)).isoformat()]
    assert cli.main(["mirror", "counts", *window]) == 0
    assert "sentry: 5 sent, 5 ok, 0 failed; p50 10 ms, p95 10 ms" in capsys.readouterr().out
    assert cli.main(["--json", "mirror", "counts", *window]) == 0
    assert json.loads(capsys.readouterr().out)["glitchtip"]["ok"] == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--since", "1h", "--until", "2h"], "the window ends before it begins"),
        (["--log-dir", "/nonexistent"], "there is no log of the mirror"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_a_window_that_makes_no_sense_is_one_sentence(capsys, arguments, told):
    assert cli.main(["mirror", "counts", *arguments]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_a_mirror_that_does_not_answer_is_a_bad_answer(capsys, monkeypatch):
    assert cli.main(["mirror", "status"]) == 3
    assert "does not answer" in capsys.readouterr().out
    monkeypatch.setattr(module, "answers", lambda _listen: "0123456789abcdef")
    assert cli.main(["--json", "mirror", "status"]) == 0
    assert json.loads(capsys.readouterr().out)["revision"] == "0123456789abcdef"


def test_a_host_without_a_mirror_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GLITCHTIP_OPS_CONFIG_DIR", str(tmp_path))
    assert cli.main(["mirror", "status"]) == 0
    assert "no mirror" in capsys.readouterr().out
    assert cli.main(["mirror", "counts"]) == 1
    (tmp_path / "mirror.json").write_text("{}")
    assert cli.main(["mirror", "status"]) == 1
    assert "lacks listen or log_dir" in capsys.readouterr().err
