"""``ai-admin-cutover mirror-config`` with a real nginx: what it writes is what answers, and what fails leaves what was."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from integration.mirror.bed import KEY, NEW_KEY, OTHER_NEW_KEY, Authority, Bed, Client, Tracker, free_port

from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError
from glitchtip_cutover.mirror import SystemdNginx, configure
from glitchtip_cutover.mirror_routes import Names
from glitchtip_cutover.snapshot import Before, save_before

PATH = f"/api/7/envelope/?sentry_key={KEY}"
NAMES = Names(hosts={"localhost": "127.0.0.1"})


class Running(SystemdNginx):
    """nginx as on a host, but started by the bed and not by systemd."""

    def __init__(self, bed: Bed) -> None:
        super().__init__(bed.settings)
        self.bed = bed

    def take(self) -> None:
        self.bed.take()


class Place:
    """A configuration and a snapshot for one service between two trackers."""

    def __init__(self, bed: Bed, old_dsn: str, new_dsn: str) -> None:
        self.bed = bed
        self.root = bed.root / "host"
        (self.root / "state/before").mkdir(parents=True)
        (self.root / ".env").write_text(f"SENTRY_DSN={old_dsn}\n")
        (self.root / "dsn").write_text(new_dsn)
        save_before(self.root / "state/before/services.json", Before(old_dsn, {"api": None}, {"api": [1]}))
        (self.root / "state/before/snapshot.json").write_text("{}")
        settings = bed.settings
        self.mirror = {
            name: getattr(settings, name)
            for name in (
                "listen",
                "directory",
                "log_dir",
                "cache_dir",
                "pid_file",
                "nginx",
                "user",
                "ca_file",
            )
        }

    def run(self) -> dict:
        side = {"api_url": "http://127.0.0.1:1", "organization": "o", "project": "p"}
        document = {
            "migration_id": "m1",
            "state_dir": str(self.root / "state"),
            "env_file": str(self.root / ".env"),
            "app_dir": str(self.root),
            "pm2": {"user": "root"},
            "services": ["api"],
            "new": {**side, "token_file": str(self.root / "token"), "dsn_file": str(self.root / "dsn")},
            "mirror": self.mirror,
        }
        host = SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep, progress=lambda _line: None)
        config = parse_config(document, self.root / "config.json")
        return configure(config, host, server=Running(self.bed), names=NAMES)


@pytest.fixture
def between(bed: Bed) -> tuple[Place, Tracker, Tracker]:
    old, new = bed.tracker(), bed.tracker()
    return Place(bed, old.dsn(KEY, "7"), new.dsn(NEW_KEY, "3")), old, new


def test_it_is_checked_taken_on_and_repeated_without_a_change(bed, between):
    place, old, new = between
    first = place.run()
    assert first["changed"]
    assert Client(bed.port).post(b"x", PATH).status == 200
    bed.settled(2)
    assert len(old.got) == len(new.got) == 1
    assert place.run() == {**first, "changed": False}
    file = bed.settings.file
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["nginx.conf"]
    assert not [secret for secret in (KEY, NEW_KEY) if secret in json.dumps(first)]


def test_a_new_dsn_is_taken_on_under_traffic_and_no_event_is_lost(bed, between):
    place, old, new = between
    place.run()
    stop, sent = threading.Event(), []

    def traffic() -> None:
        while not stop.is_set():
            sent.append(Client(bed.port).post(b"x", PATH).status)

    thread = threading.Thread(target=traffic)
    thread.start()
    (place.root / "dsn").write_text(new.dsn(OTHER_NEW_KEY, "4"))
    assert place.run()["changed"]
    time.sleep(0.1)
    stop.set()
    thread.join()
    assert set(sent) == {200}
    bed.settled(2 * len(sent))
    assert len(old.got) == len(new.got) == len(sent)
    assert {got.path.split("/")[2] for got in new.got} == {"3", "4"}


def test_what_nginx_cannot_take_on_leaves_the_mirror_as_it_was(bed, between):
    place, *_ = between
    before = place.run()
    text = bed.settings.file.read_bytes()
    place.mirror["cache_dir"] = "/proc/nowhere"  # nginx -t refuses: it cannot make its directories there
    with pytest.raises(CutoverError, match="nothing was changed"):
        place.run()
    assert bed.settings.file.read_bytes() == text
    assert SystemdNginx(bed.settings).revision() == before["revision"]
    assert Client(bed.port).post(b"x", PATH).status == 200


def test_a_listener_that_is_taken_by_another_is_told_and_the_mirror_of_before_answers(bed, between):
    place, old, _ = between
    before = place.run()
    other = Tracker()
    try:
        place.mirror["listen"] = f"http://127.0.0.1:{other.port}"
        with pytest.raises(CutoverError, match="the configuration of before is back"):
            place.run()
    finally:
        other.close()
    assert SystemdNginx(bed.settings).revision() == before["revision"]
    assert Client(bed.port).post(b"x", PATH).status == 200
    assert len(old.got) == 1


def test_no_mirror_is_put_in_front_of_a_tracker_that_is_not_there_or_is_not_who_it_says(bed):
    place = Place(
        bed, f"http://{KEY}@127.0.0.1:{free_port()}/7", f"http://{NEW_KEY}@127.0.0.1:{free_port()}/3"
    )
    with pytest.raises(CutoverError, match="cannot be reached"):
        place.run()
    authority = Authority(bed.root / "ca")
    old = bed.tracker(tls=authority.context("elsewhere.example.org"), host="localhost")
    save_before(
        place.root / "state/before/services.json", Before(old.dsn(KEY, "7"), {"api": None}, {"api": [1]})
    )
    place.mirror["ca_file"] = str(authority.file)
    with pytest.raises(CutoverError, match="certificate of localhost"):
        place.run()
    assert not bed.settings.file.exists()
    assert old.got == []


def test_files_of_nginx_belong_to_its_own_user(bed, between):
    place, *_ = between
    place.run()
    Client(bed.port).post(b"x", PATH)
    bed.settled(2)
    wanted = os.stat(bed.root / "cache").st_uid
    assert {path.stat().st_uid for path in Path(bed.settings.log_dir).iterdir()} == {wanted}
