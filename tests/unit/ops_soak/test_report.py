"""The report tells all that the samples tell, in a bounded page, and what is hostile stays text."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from unit.ops_soak import START, long_run, make_plan, make_run, with_mirror

from glitchtip_ops.report import html_report, markdown_report, read_report
from glitchtip_ops.report.chart import Chart, Limit, Line, nice_step, segments, svg, text, thin
from glitchtip_ops.report.collecting import MOST_LINES, Report
from glitchtip_ops.report.markdown import LONGEST, clip, plain
from glitchtip_ops.soak.running import conclude
from glitchtip_ops.soak.store import SoakFiles

ROOT = Path(__file__).resolve().parents[3]
NOW = START + timedelta(seconds=62)
HOSTILE = '"><script>alert(1)</script>\u202e'


def report_of(directory: Path, samples: list[dict[str, Any]], *, judged: bool = True, **plan: Any) -> Report:
    files, ordered = SoakFiles(directory), make_plan(**plan)
    files.write_plan(ordered)
    files.samples.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    if judged:
        conclude(files, ordered, NOW)
    return read_report(files, ordered, NOW)


def drawings(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", page)]  # noqa: S314 - our own


def told(report: Report) -> list[str]:
    return [event.text for event in report.events.kept]


# --- the page ---------------------------------------------------------------------------------------------


def test_a_page_of_a_good_soak_has_the_verdict_every_criterion_and_whole_drawings(tmp_path: Path) -> None:
    report = report_of(tmp_path, with_mirror(make_run()), mode="mirror", host="vps-1")
    page = html_report(report)
    assert '<span class="badge">GO</span>' in page
    assert page.count("✓ met") == sum(1 for each in report.verdict["criteria"] if each["met"])
    for each in report.verdict["criteria"]:
        assert html.escape(each["name"]) in page
        assert html.escape(each["threshold"]) in page
    assert len(drawings(page)) > 12  # plots and the marks of their legends, each well formed
    assert "Nothing of note." in page
    assert "vps-1" in page
    assert "Valid until 2026-01-17" in page


def test_a_soak_that_runs_is_not_shown_as_a_verdict(tmp_path: Path) -> None:
    page = html_report(report_of(tmp_path, make_run(30), judged=False))
    assert '<span class="badge">RUNNING</span>' in page
    assert "The soak goes on" in page


def test_a_soak_without_a_sample_has_a_page(tmp_path: Path) -> None:
    report = report_of(tmp_path, [], judged=False)
    assert "No sample was taken yet." in html_report(report)
    assert "RUNNING" in markdown_report(report)


def test_what_was_not_measured_is_named_and_not_drawn(tmp_path: Path) -> None:
    samples = make_run()
    for sample in samples:
        sample.update(queue=None, cpu=None)
    page = html_report(report_of(tmp_path, samples))
    assert 'id="plot-queue"' not in page
    assert (
        "Nothing to plot: CPU of the host; Load; Mirror: envelopes a sample; Messages waiting for the worker."
        in page
    )


def test_samples_of_another_make_still_have_a_report(tmp_path: Path) -> None:
    bare = [{"at": sample["at"]} for sample in make_run()]
    report = report_of(tmp_path, bare)
    assert report.verdict["verdict"] == "NO_GO"
    assert "NO-GO" in html_report(report)


def test_names_from_the_host_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    samples = make_run()
    for sample in samples:
        sample["containers"][0]["service"] = HOSTILE
        sample["pm2"][0]["name"] = HOSTILE
        sample["disk"][0]["path"] = HOSTILE
    samples[3].update(errors=[f"{HOSTILE}: {HOSTILE}"], probe={"captured": False, "error": HOSTILE})
    report = report_of(
        tmp_path,
        samples,
        services=(HOSTILE,),
        pm2_services=(HOSTILE,),
        host=HOSTILE,
        versions={HOSTILE: HOSTILE},
    )
    page = html_report(report)
    assert "<script" not in page
    assert "\u202e" not in page
    assert html.escape(HOSTILE[:-1]) in page
    assert drawings(page)


# --- what happened ----------------------------------------------------------------------------------------


def test_what_happened_is_told_once_at_its_beginning_and_its_end(tmp_path: Path) -> None:
    samples = make_run(300)
    for index in (10, 11, 12):
        samples[index]["probe"].update(captured=False, error="refused")
        samples[index]["containers"][1].update(well=False, state="restarting", health=None)
        samples[index]["errors"] = ["disk: no answer"]
    for sample in samples[20:]:
        sample["containers"][0]["restarts"] = 2
        sample["pm2"][0]["restarts"] = 8
    samples[25]["worker_errors"] = 4
    del samples[5:9]
    report = report_of(tmp_path, samples, duration=300.0)
    assert told(report) == [
        "no samples for 50 s before this one",
        "valkey is restarting/None",
        "a test event was not captured (refused)",
        "disk is failed (disk: no answer)",
        "valkey is well again",
        "test events arrive again after 3 that were not captured",
        "disk is well again",
        "container postgres restarted 2 time(s)",
        "PM2 service ai-admin-api restarted 1 time(s)",
        "4 error line(s) in the worker's log",
    ]
    assert len(report.gaps) == 1


def test_a_host_where_everything_flaps_has_a_page_of_bounded_size(tmp_path: Path) -> None:
    samples = make_run(20000, 10)
    for number, sample in enumerate(samples):
        sample["containers"] = [
            {
                **sample["containers"][0],
                "service": f"s{place}",
                "well": bool(number % 2),
                "memory": number % 2 or None,
            }
            for place in range(20)
        ]
    services = tuple(f"s{place}" for place in range(20))
    report = report_of(tmp_path, samples, duration=20000.0, services=services)
    assert len(report.series.plots["containers"]) == MOST_LINES
    assert report.events.count > 10000
    page = html_report(report)
    assert len(page) < 3_000_000
    assert f"only the first {MOST_LINES} are drawn" in page
    assert "more.</p>" in page


# --- drawings ---------------------------------------------------------------------------------------------


def chart(values: list[float], **changes: Any) -> Chart:
    times = [float(10 * number) for number in range(len(values))]
    base: dict[str, Any] = {
        "id": "x",
        "title": "T",
        "unit": "%",
        "times": times,
        "lines": [Line("a", values)],
    }
    return Chart(**{**base, **changes})


def paths(drawn: str, style: str) -> list[str]:
    return re.findall(rf'<path class="{style}[^"]*" d="([^"]*)"', drawn)


def test_a_line_is_interrupted_where_a_value_or_a_sample_is_missing() -> None:
    times = [0.0, 10.0, 20.0, 30.0, 100.0, 110.0]
    values = [1.0, 2.0, math.nan, 3.0, 4.0, 5.0]
    parts = list(segments(times, values, 30.0))
    assert [[at for at, _ in part] for part in parts] == [[0, 10], [30], [100, 110]]
    drawn = svg(chart(values, times=times), 30.0)
    assert paths(drawn, "line s0")[0].count("M") == 2
    assert drawn.count("<circle") == 1


def test_a_threshold_stands_where_its_value_is_on_the_axis() -> None:
    drawn = svg(chart([50.0, 50.0], limits=(Limit(50.0, "fifty"), Limit(100.0, "all")), top=100.0), 30.0)
    line = paths(drawn, "line s0")[0]
    level = re.search(r"M\S+ ([0-9.]+)L", line)
    fifty, all_of_it = (re.search(r"M\d+ ([0-9.]+)H", path) for path in paths(drawn, "limit"))
    assert level
    assert fifty
    assert all_of_it
    assert fifty[1] == level[1]
    assert float(all_of_it[1]) < float(fifty[1])
    assert "fifty" in drawn


def test_a_threshold_above_all_values_is_still_on_the_plot() -> None:
    drawn = svg(chart([1.0, 2.0], limits=(Limit(500.0, "far"),)), 30.0)
    height = float(re.search(r'viewBox="0 0 \d+ (\d+)"', drawn)[1])  # type: ignore[index]
    (at,) = [float(re.search(r"M\d+ ([0-9.]+)H", path)[1]) for path in paths(drawn, "limit")]  # type: ignore[index]
    assert 0 < at < height


@pytest.mark.parametrize(
    "values", [[0.0], [0.0, 0.0], [1e-9, 2e-9], [1e12, 2e12], [math.nan, 1.0], [5.0] * 3]
)
@pytest.mark.parametrize("logarithmic", [False, True])
def test_odd_values_are_drawn_with_finite_coordinates(values: list[float], logarithmic: bool) -> None:
    drawn = svg(chart(values, logarithmic=logarithmic), 30.0)
    ElementTree.fromstring(drawn)  # noqa: S314 - our own
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_thinning_keeps_every_extreme_and_bounds_the_points() -> None:
    points = [(float(at), math.sin(at / 40)) for at in range(17000)]
    points[9000] = (9000.0, 99.0)
    points[12000] = (12000.0, -99.0)
    kept = thin(points, 600)
    assert len(kept) <= 600
    assert {99.0, -99.0} <= {value for _, value in kept}
    assert kept == sorted(kept)
    assert thin(points[:10], 600) == points[:10]


@pytest.mark.parametrize(("span", "step"), [(100, 20), (1, 0.2), (7, 2), (0.03, 0.01), (1234, 500)])
def test_steps_of_an_axis_are_round(span: float, step: float) -> None:
    assert nice_step(span) == pytest.approx(step)


def test_text_is_escaped_without_control_and_direction_characters_and_clipped() -> None:
    assert text("<a href='x'>\u202e\x00\x1b&") == "&lt;a href=&#x27;x&#x27;&gt;\ufffd\ufffd\ufffd&amp;"
    assert len(text("x" * 900)) == 300


# --- Markdown ---------------------------------------------------------------------------------------------


def test_markdown_tells_verdict_reasons_and_criteria(tmp_path: Path) -> None:
    samples = make_run()
    samples[2]["memory"]["system_percent"] = 91.0
    found = markdown_report(report_of(tmp_path, samples))
    assert found.startswith("**NO-GO** · soak of GlitchTip, m1\n")
    assert (
        "- system memory reached 91.0 % \\(cgroup, 2026-01-10 06:00:20 UTC; allowed: below 80 %\\)" in found
    )
    assert "- ✅ coverage" in found
    assert "- ❌ memory of the host" in found


def test_markdown_is_clipped_at_4000_characters_by_whole_lines(tmp_path: Path) -> None:
    samples = make_run(3000)
    for number, sample in enumerate(samples):
        sample["containers"][0]["restarts"] = number
        sample["probe"].update(captured=bool(number % 2), error="x" * 400)
    found = markdown_report(report_of(tmp_path, samples, duration=3000.0))
    assert 3000 < len(found) <= LONGEST
    assert found.endswith("\n… (shortened)\n")
    assert found.startswith("**NO-GO**")
    assert clip("short\n") == "short\n"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("@everyone", "@\u200beveryone"),
        ("[x](javascript:1)", "\\[x\\]\\(javascript:1\\)"),
        ("**GO**", "\\*\\*GO\\*\\*"),
        ("a\n# GO\n", "a \\# GO"),
        ("https://evil.example/", "https:\u200b//evil.example/"),
        ("<!channel> <@U1>", "\\<\\!channel\\> \\<@\u200bU1\\>"),
        ("\u202egnp", "gnp"),
    ],
)
def test_markdown_of_names_pings_nobody_and_formats_nothing(hostile: str, shown: str) -> None:
    assert plain(hostile) == shown


# --- cost -------------------------------------------------------------------------------------------------

MEASURE = """
import json, re, sys, time
from datetime import timedelta
from pathlib import Path
from glitchtip_ops.report import html_report, markdown_report, read_report
from glitchtip_ops.soak.store import SoakFiles
from datetime import datetime, UTC
files = SoakFiles(Path(sys.argv[1]))
began = time.process_time()
page = html_report(read_report(files, files.read_plan(), datetime(2026, 1, 12, 6, 1, tzinfo=UTC)))
most = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024  # not the parent's, as ru_maxrss
print(json.dumps([time.process_time() - began, most, len(page)]))
"""


def test_the_report_of_48_hours_every_ten_seconds_is_made_in_seconds_and_little_memory(
    tmp_path: Path,
) -> None:
    files, plan = SoakFiles(tmp_path), make_plan(duration=172800.0, mode="mirror")
    files.write_plan(plan)
    with files.samples.open("w") as stream:
        for sample in long_run(172800, 10):
            stream.write(json.dumps(sample) + "\n")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seconds, mib, size = json.loads(done.stdout)
    print(f"17281 samples: {seconds:.1f} s of CPU, {mib:.0f} MiB, a page of {size / 1024:.0f} KiB")
    assert seconds < 10
    assert mib < 100
    assert size < 1_000_000
