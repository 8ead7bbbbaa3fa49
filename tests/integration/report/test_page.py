"""The report as a real browser shows it: drawn, quiet, readable on a desk, on a phone, in the dark and on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from integration.report.browser import DESK, PHONE, Browser
from integration.report.conftest import HOSTILE, TAG, Door

PLOTS = """[...document.querySelectorAll('figure')].map(figure => {
  const svg = figure.querySelector(':scope > svg').getBoundingClientRect();
  const size = shape => { const box = shape.getBBox(); return [box.width, box.height]; };
  return {
    id: figure.id, width: svg.width, height: svg.height,
    lines: [...figure.querySelectorAll(':scope > svg > .line')].map(path => [...size(path), path.getTotalLength(),
      getComputedStyle(path).stroke, parseFloat(getComputedStyle(path).strokeWidth)]),
    limits: [...figure.querySelectorAll(':scope > svg > .limit')].map(path => [...size(path), path.getTotalLength(),
      getComputedStyle(path).stroke]),
    gaps: [...figure.querySelectorAll(':scope > svg > .gap')].map(size),
    labels: [...figure.querySelectorAll(':scope > svg > text')].map(text => text.textContent),
    outside: [...figure.querySelectorAll(':scope > svg text')].filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < svg.left - 1 || box.right > svg.right + 1 || box.top < svg.top - 1 || box.bottom > svg.bottom + 1;
    }).map(text => text.textContent),
    legend: figure.querySelector('.legend').innerText,
  };
})"""

CONTRAST = """(() => {
  const numbers = text => text.match(/[0-9.]+/g).map(Number);
  const light = colour => { const [r, g, b] = numbers(colour).map(part => part / 255).map(
    part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ratio = (one, two) => { const [a, b] = [light(one), light(two)].sort((x, y) => y - x); return (a + 0.05) / (b + 0.05); };
  const ground = element => { for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor; if ((numbers(colour)[3] ?? 1) > 0) return colour; }
    return 'rgb(255, 255, 255)'; };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    if (own && element.closest('svg')) found.push(['text', ratio(style.fill, ground(element)), element.textContent.slice(0, 40)]);
    else if (own) found.push(['text', ratio(style.color, ground(element)), element.textContent.slice(0, 40)]);
    if (element.matches('.line, .limit')) found.push(['line', ratio(style.stroke, ground(element)), element.getAttribute('class')]);
  }
  return found;
})()"""

OVERFLOW = """[...document.querySelectorAll('body *')].filter(element => !element.closest('svg') && !element.closest('thead')
  && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(element => element.outerHTML.slice(0, 80))"""


@pytest.fixture(params=["good_page", "bad_page"])
def page(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def text_of(browser: Browser) -> str:
    return str(browser.evaluate("document.body.innerText"))


def test_every_plot_is_drawn_with_axes_units_and_thresholds(browser: Browser, good_page: Path) -> None:
    browser.open(good_page)
    plots = {plot["id"].removeprefix("plot-"): plot for plot in browser.evaluate(PLOTS)}
    assert set(plots) == {
        *("memory", "containers", "cpu", "load", "container_cpu", "disk", "probe", "restarts"),
        *("pm2_memory", "pm2_restarts", "mirror", "queue"),
    }
    units = {
        "memory": "%",
        "containers": "MiB",
        "probe": "seconds",
        "load": "per core",
        "mirror": "envelopes",
    }
    for name, plot in plots.items():
        assert plot["width"] > 300, name
        assert plot["height"] > 100, name
        assert plot["lines"], name
        for width, height, length, stroke, thickness in plot["lines"]:
            assert width > 300, name  # it reaches over the plot
            assert length >= width > 0, name
            assert height >= 0, name
            assert stroke not in ("none", "rgb(0, 0, 0)"), name
            assert thickness > 1, name
        assert plot["outside"] == [], name
        assert sum(bool(re.fullmatch(r"[0-9.]+", label)) for label in plot["labels"]) >= 2, name
        assert sum(bool(re.search(r"\d\d:\d\d", label)) for label in plot["labels"]) >= 2, name
        assert units.get(name, "") in plot["labels"] or name not in units, name
    moving = (
        "memory",
        "containers",
        "cpu",
        "load",
        "container_cpu",
        "probe",
        "pm2_memory",
        "mirror",
        "queue",
    )
    for name in moving:
        assert any(height > 3 for _, height, *_ in plots[name]["lines"]), name
    limited = {name: len(plot["limits"]) for name, plot in plots.items() if plot["limits"]}
    assert limited == {"memory": 2, "load": 1, "disk": 1, "probe": 2, "restarts": 1, "pm2_restarts": 1}
    assert all(limit[2] > 300 for plot in plots.values() for limit in plot["limits"])
    assert "host below 80 %" in plots["memory"]["labels"]
    assert "all within 30 s" in plots["probe"]["labels"]
    assert "worker" in plots["containers"]["legend"]
    assert all(plot["gaps"] == [] for plot in plots.values())


def test_gaps_and_missed_events_are_seen(browser: Browser, bad_page: Path) -> None:
    browser.open(bad_page)
    plots = {plot["id"].removeprefix("plot-"): plot for plot in browser.evaluate(PLOTS)}
    for plot in plots.values():
        assert len(plot["gaps"]) == 1
        assert plot["gaps"][0][0] > 20
        assert plot["gaps"][0][1] > 100
    moves = browser.evaluate(
        "document.querySelector('#plot-memory svg .line').getAttribute('d').match(/M/g).length"
    )
    assert moves == 2  # the line is interrupted where no samples were taken
    missed = browser.evaluate(
        "[...document.querySelectorAll('#plot-probe > svg circle.missed')].map(mark => mark.getBBox().width)"
    )
    assert len(missed) == 4
    assert all(width > 2 for width in missed)
    assert "not captured" in plots["probe"]["legend"]


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_and_fits(
    browser: Browser, door: Door, page: Path, size: tuple[int, int], scheme: str
) -> None:
    attempts = len(door.of_pages())
    browser.open(page, size, scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") == size[0]
    assert browser.evaluate(OVERFLOW) == []
    assert [plot["outside"] for plot in browser.evaluate(PLOTS) if plot["outside"]] == []
    assert browser.complaints == []
    assert browser.requests == [page.as_uri()]
    assert len(door.of_pages()) == attempts
    assert browser.evaluate("performance.getEntriesByType('resource').length") == 0


def test_the_browser_would_have_told(browser: Browser, door: Door, tmp_path: Path) -> None:
    """The control: a page that asks somebody, complains and is too wide is noticed by the same means."""
    bad = tmp_path / "bad.html"
    wide = '<div style="width:900px">x</div><p style="color:#999;background:#aaa">pale</p>'
    fit = '<meta name="viewport" content="width=device-width,initial-scale=1,minimum-scale=1">'
    bad.write_text(
        f'{fit}<img src="http://tracker.example.org/x.png"><script>console.error("hm")</script>{wide}'
    )
    browser.open(bad, PHONE)
    assert any("tracker.example.org" in url for url in browser.requests)
    assert any(b"tracker.example.org" in attempt for attempt in door.of_pages())
    assert browser.complaints
    assert browser.evaluate(OVERFLOW)
    assert browser.evaluate("document.documentElement.scrollWidth") > PHONE[0]
    assert min(ratio for kind, ratio, _ in browser.evaluate(CONTRAST) if kind == "text") < 4.5


@pytest.mark.parametrize(("fixture", "words"), [("good_page", "GO"), ("bad_page", "NO-GO")])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_verdict_is_the_first_thing_to_see(
    browser: Browser, request: pytest.FixtureRequest, fixture: str, words: str, size: tuple[int, int]
) -> None:
    browser.open(request.getfixturevalue(fixture), size)
    badge = "document.querySelector('#verdict .badge')"
    assert browser.evaluate(f"{badge}.innerText") == words
    box = browser.evaluate(f"{badge}.getBoundingClientRect().toJSON()")
    assert 0 < box["top"] < 200
    assert box["width"] > 50
    assert browser.evaluate(f"getComputedStyle({badge}).visibility") == "visible"
    on_top = browser.evaluate(f"document.elementFromPoint({box['x'] + 20}, {box['y'] + 20}) === {badge}")
    assert on_top
    assert browser.evaluate("document.title").startswith(f"{words}: ")


def test_no_go_gives_its_reasons_its_events_and_its_parity(browser: Browser, bad_page: Path) -> None:
    browser.open(bad_page)
    shown = text_of(browser)
    for sentence in (
        "gap(s) in the samples, the longest 660 s",
        "PM2 service ai-admin-api restarted 2 time(s)",
        "test events arrive again after 4 that were not captured",
        "no samples for 660 s before this one",
        "GlitchTip has 90.00 % of Sentry's events",
        "Cannot be compared: fingerprint",
    ):
        assert sentence in shown
    assert shown.count("✗ not met") == browser.evaluate("document.querySelectorAll('td.bad').length") >= 6


def test_hostile_names_are_text(browser: Browser, bad_page: Path) -> None:
    browser.open(bad_page)
    shown = text_of(browser)
    visible = HOSTILE.replace("\u202e", "\ufffd")
    assert visible in shown
    assert TAG in shown
    assert "\u202e" not in browser.evaluate("document.documentElement.outerHTML")
    for made in ("script", "img", "iframe", "object", "link[rel=stylesheet]", "a", "[onerror]", "[style]"):
        assert browser.evaluate(f"document.querySelectorAll('{made}').length") == 0, made
    assert browser.evaluate("document.querySelectorAll('style').length") == 1
    assert browser.evaluate("document.querySelectorAll('main').length") == 1
    assert visible in browser.evaluate("document.querySelector('#plot-containers .legend').innerText")
    assert visible in browser.evaluate("document.querySelector('#parity').innerText")


def test_the_policy_of_the_page_stops_what_would_get_in(
    browser: Browser, door: Door, good_page: Path, tmp_path: Path
) -> None:
    """Were an escape forgotten, the browser itself would still run nothing and ask nobody."""
    broken = tmp_path / "broken.html"
    inside = '<script>document.title="run"</script><img src="http://tracker.example.net/x"><style>body{display:none}</style>'
    broken.write_text(good_page.read_text().replace("</main>", inside + "</main>"))
    browser.open(broken)
    assert browser.evaluate("document.title") != "run"
    assert browser.evaluate("getComputedStyle(document.body).display") == "block"
    assert not any(b"tracker.example.net" in attempt for attempt in door.of_pages())
    assert browser.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_and_lines_stand_out_from_their_ground(browser: Browser, page: Path, scheme: str) -> None:
    browser.open(page, DESK, scheme)
    found = browser.evaluate(CONTRAST)
    assert len(found) > 150
    pale = [entry for entry in found if entry[1] < (4.5 if entry[0] == "text" else 3.0)]
    assert pale == []
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 150) is (scheme == "dark")


def test_it_prints_in_light_colours_without_cutting_a_plot(browser: Browser, good_page: Path) -> None:
    browser.open(good_page, DESK, "dark", media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    printed = browser.pdf()
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 2 <= pages <= 8


def test_the_file_refers_to_nothing_outside_itself(page: Path) -> None:
    html = page.read_text()
    assert not re.search(
        r"(?:src|href|action|srcset|xlink:href)\s*=\s*[\"']?(?!data:,)[^\"'&]",
        re.sub(r"&lt;.*?&gt;", "", html),
    )
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
