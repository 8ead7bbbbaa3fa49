"""A line of a crontab that would start a service with another DSN is found, whatever its schedule and whoever's it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.cutover.simulation import KEY, NEW, OLD
from unit.cutover.test_drift import ELSEWHERE, OLD_HOST, ROTATED, Product, ecosystem

from glitchtip_cutover.crontabs import named_files, owners_of, read_crontabs

SCHEDULES = ["@reboot", "@daily", "@hourly", "@every_minute", "0 3 * * *", "*/5 8-18 * * mon-fri"]
# Where cron reads lines; USER is the user of PM2. In the system's tables the user is a word of the line.
PLACES = {
    "Debian": ("spool/crontabs/USER", ""),
    "cronie": ("spool/USER", ""),
    "SUSE": ("spool/tabs/USER", ""),
    "root": ("spool/crontabs/root", ""),
    "the system's": ("etc/crontab", "USER "),
    "anacron": ("etc/anacrontab", ""),
    "cron.d": ("etc/cron.d/product", "USER "),
    "cron.daily": ("etc/cron.daily/product", ""),
    "rc.local": ("etc/rc.local", ""),
}


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Product:
    return Product(tmp_path, monkeypatch).switched()


def put(product: Product, place: str, text: str) -> Path:
    path = product.root / place.replace("USER", product.world.config.pm2.user)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("USER", product.world.config.pm2.user))
    return path


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_old_dsn_in_a_line_of_any_schedule_is_a_problem(product: Product, schedule: str) -> None:
    line = f"{schedule} cd /srv/app && {KEY}={OLD} node x.js\n"
    path = put(product, "spool/crontabs/USER", f"# m h dom mon dow\nMAILTO=ops\n{line}")
    [problem] = product.problems()
    assert problem.startswith(
        f"{path}:3 {KEY} names {OLD_HOST}: cron's next run of that line (at boot for @reboot) would move"
    )
    assert f"Run `crontab -u {product.world.config.pm2.user} -e` and set it to the DSN in" in problem
    path.write_text(path.read_text().replace(OLD, NEW))
    assert product.problems() == []


@pytest.mark.parametrize("place", PLACES)
def test_each_place_that_cron_or_the_boot_reads_is_compared(product: Product, place: str) -> None:
    name, user = PLACES[place]
    path = put(product, name, f"@reboot {user}{KEY}={OLD} pm2 resurrect\n")
    [problem] = product.problems()
    assert problem.startswith(f"{path}:1 {KEY} names {OLD_HOST}")
    assert ("crontab -u" in problem) == name.startswith("spool")


LINES = {
    "a variable of the whole crontab": f"{KEY} = {OLD}\n@reboot pm2 resurrect\n",
    "quoted": f"@reboot cd /srv/app && {KEY}='{OLD}' node x.js\n",
    "exported": f"@reboot export {KEY}={OLD}; node x.js\n",
    "env": f"@reboot env {KEY}={OLD} node x.js\n",
    "another key of the old tracker": f"@reboot {KEY}={ROTATED} node x.js\n",
    "without a variable": f"@reboot node x.js --dsn {OLD}\n",
    "a later command of the line": f"0 * * * * true && {KEY}={OLD} pm2 restart api --update-env >/dev/null 2>&1\n",
}


@pytest.mark.parametrize("case", LINES)
def test_each_way_to_give_a_dsn_in_a_line_is_a_problem(product: Product, case: str) -> None:
    put(product, "spool/crontabs/USER", LINES[case])
    assert len(product.problems()) == 1


HARMLESS = {
    "a comment": ("spool/crontabs/USER", f"# @reboot {KEY}={OLD} node x.js\n"),
    "behind a comment": ("spool/crontabs/USER", f"@reboot node x.js # {KEY}={OLD}\n"),
    "another user": ("spool/crontabs/somebody-else", f"@reboot {KEY}={OLD} node x.js\n"),
    "another product": ("spool/crontabs/root", f"@daily {KEY}={ELSEWHERE} php /srv/shop/cron.php\n"),
    "a package's leftover": ("etc/cron.d/product.dpkg-old", f"@reboot root {KEY}={OLD} node x.js\n"),
    "a script that run-parts leaves out": ("etc/cron.daily/product.sh", f"{KEY}={OLD} node x.js\n"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_cron_does_not_run_or_is_of_others_is_no_problem(product: Product, case: str) -> None:
    put(product, *HARMLESS[case])
    assert product.problems() == []
    assert product.cutover().status()["notes"] == []


def test_another_variable_with_the_old_dsn_is_a_note(product: Product) -> None:
    put(product, "spool/crontabs/USER", f"@daily BACKUP_SENTRY={OLD} backup\n")
    assert product.problems() == []
    assert "it is not SENTRY_DSN" in product.cutover().status()["notes"][0]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("start.sh", f"#!/bin/sh\nexport {KEY}={OLD}\nexec node x.js\n", 2),
        ("ecosystem.config.cjs", ecosystem("env", OLD), 3),
        ("old.env", f"{KEY}={OLD}\n", 1),
        ("processes.json", json.dumps({"apps": [{"name": "api", "env": {KEY: OLD}}]}), 1),
    ],
)
def test_a_file_that_a_line_names_is_compared(product: Product, name: str, text: str, line: int) -> None:
    """The directory is none of those that are searched, so without the line nothing is found."""
    path = put(product, f"far/from/here/{name}", text)
    assert product.problems() == []
    table = put(product, "spool/crontabs/USER", f"@reboot /bin/sh -c 'run --file={path}' >> /dev/null\n")
    [problem] = product.problems()
    assert problem.startswith(f"{path}:{line} ")
    table.write_text(f"# {table.read_text()}")
    assert product.problems() == []


def test_the_env_of_another_product_that_a_line_names_is_no_problem(product: Product) -> None:
    path = put(product, "far/from/shop/.env", f"{KEY}={ELSEWHERE}\n")
    put(product, "spool/crontabs/root", f"@daily php /srv/shop/cron.php --env={path}\n")
    assert product.problems() == []


def test_the_plan_names_the_line_before_the_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(tmp_path, monkeypatch)
    product.cutover().snapshot()
    path = put(product, "etc/cron.d/product", f"@reboot USER {KEY}={OLD} node x.js\n")
    plan = product.cutover().plan()
    assert plan["ready"], plan["problems"]
    assert plan["notes"][0].startswith(f"{path}:1 ")


def test_paths_are_taken_from_commands_alone() -> None:
    text = "# /srv/no.sh\nPATH=/usr/bin:/bin\n@reboot . /srv/a/.env; --env-file=/srv/b.env >>/var/log/x.log # ok\n* * * * * ~/c.sh a/b.sh https://h/x.sh\n"
    found = [str(path) for path in named_files(text)]
    assert [name for name in found if name.endswith((".env", ".sh"))] == ["/srv/a/.env", "/srv/b.env"]


def test_owners_of_what_is_not_there_are_left_out(tmp_path: Path) -> None:
    assert owners_of([tmp_path / "absent"]) == set()
    assert owners_of([tmp_path]) == owners_of([tmp_path, tmp_path / "absent"]) != set()


def test_without_cron_nothing_is_read(tmp_path: Path) -> None:
    assert list(read_crontabs({"root"}, tmp_path / "etc", tmp_path / "spool")) == []
