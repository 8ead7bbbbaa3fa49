"""The mirror's configuration: what is asked for, what is refused, and what is back when nginx does not take it."""

from __future__ import annotations

import json
import os
import pwd
from types import SimpleNamespace

import pytest

from glitchtip_core.dsn import parse_dsn
from glitchtip_cutover import mirror
from glitchtip_cutover.config_file import parse_config
from glitchtip_cutover.errors import CutoverError, IncompleteError, InterruptedRunError, UsageError
from glitchtip_cutover.mirror import configure, problem, remove
from glitchtip_cutover.mirror_routes import (
    Names,
    NginxSettings,
    mirror_dsn,
    parse_settings,
    read_names,
    routes,
    settings_of,
)
from glitchtip_cutover.mirror_text import render, revision_of
from glitchtip_cutover.snapshot import Before, save_before

OLD_KEY = "a" * 32
OTHER_KEY = "b" * 32
NEW_KEY = "c" * 32
OLD = f"https://{OLD_KEY}@o1.ingest.sentry.io/7"
NEW = f"http://{NEW_KEY}@127.0.0.1:8080/1"
NAMES = Names(servers=("192.0.2.53",))
SECRETS = (OLD_KEY, OTHER_KEY, NEW_KEY)


def one(old=OLD, new=NEW, service="api"):
    return (service, parse_dsn(old), parse_dsn(new))


def rendered(*pairs, names=NAMES, **settings):
    made = NginxSettings(**settings)
    return render(routes(pairs or [one()], made), made, names)


class Nginx:
    """Takes on what the file says, unless it was told to be unable."""

    def __init__(self, file):
        self.file = file
        self.problem = ""
        self.deaf = 0
        self.running = ""
        self.takes = 0
        self.checked = []

    def check(self, path):
        self.checked.append(path.read_text())
        return self.problem

    def take(self):
        self.takes += 1
        if self.deaf:
            self.deaf -= 1
        elif self.file.exists():
            self.running = revision_of(self.file.read_text())

    def revision(self):
        return self.running


@pytest.fixture
def place(tmp_path):
    """A configuration, a snapshot, a host without waiting, and an nginx that does as it is told."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "state" / "before").mkdir(parents=True)
    (tmp_path / "dsn").write_text(NEW)
    (tmp_path / ".env").write_text(f"SENTRY_DSN={OLD}\n")
    save_before(
        tmp_path / "state/before/services.json",
        Before(dsn=OLD, carried={"api": None, "bot": None}, pids={"api": [1], "bot": [2]}),
    )
    (tmp_path / "state/before/snapshot.json").write_text("{}")
    document = {
        "migration_id": "m1",
        "state_dir": str(tmp_path / "state"),
        "env_file": str(tmp_path / ".env"),
        "app_dir": str(tmp_path),
        "pm2": {"user": "root"},
        "services": ["api", "bot"],
        "new": {
            "api_url": "http://127.0.0.1:8080",
            "organization": "o",
            "project": "p",
            "token_file": str(tmp_path / "token"),
            "dsn_file": str(tmp_path / "dsn"),
        },
        "mirror": {"directory": str(tmp_path / "conf"), "user": pwd.getpwuid(os.geteuid()).pw_name},
    }
    now = [0.0]

    def nap(seconds):
        now[0] += seconds

    made = SimpleNamespace(
        root=tmp_path,
        document=document,
        nginx=Nginx(tmp_path / "conf/nginx.conf"),
        processes=[],
        told=[],
        reached=[],
    )
    made.host = SimpleNamespace(
        monotonic=lambda: now[0],
        sleep=nap,
        progress=made.told.append,
        manager=SimpleNamespace(running=True, processes=lambda: made.processes),
    )
    made.config = lambda: parse_config(made.document, tmp_path / "config.json")
    made.run = lambda: configure(
        made.config(),
        made.host,
        server=made.nginx,
        names=NAMES,
        reaching=lambda dsn, _settings: made.reached.append(str(dsn)),
    )
    return made


# ------------------------------------------------------------------------------------------------ settings


def test_without_settings_the_mirror_is_on_loopback(place):
    del place.document["mirror"]
    assert settings_of(place.config()) == NginxSettings()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], "must be a JSON object"),
        ({"lisen": "http://127.0.0.1:1"}, "no field lisen"),
        ({"listen": 19000}, "mirror.listen must be a text"),
        ({"listen": "https://127.0.0.1:19000"}, "must be http://ADDRESS:PORT"),
        ({"listen": "http://localhost:19000"}, "an address, not a name"),
        ({"listen": "http://127.0.0.1"}, "must be http://ADDRESS:PORT"),
        ({"listen": "http://127.0.0.1:70000"}, "must be http://ADDRESS:PORT"),
        ({"listen": "http://999.0.0.1:80"}, "must be http://ADDRESS:PORT"),
        ({"listen": "http://0.0.0.0:19000"}, "loopback or a private address"),
        ({"listen": "http://[::]:19000"}, "loopback or a private address"),
        ({"listen": "http://8.8.8.8:19000"}, "loopback or a private address"),
        ({"log_dir": "var/log"}, "mirror.log_dir must be an absolute path"),
        ({"log_dir": "/var/log; include /etc/shadow"}, "without blanks or quotes"),
        ({"concurrent": True}, "mirror.concurrent must be a whole number"),
        ({"concurrent": 0}, "mirror.concurrent must be a number from 1"),
        ({"answer_timeout": 31}, "mirror.answer_timeout must be a number from 1 to 30"),
        ({"connections": 100}, "at least four times mirror.concurrent"),
        ({"verify_tls": False}, "no field verify_tls"),
        ({"keepalive": 60}, "no field keepalive"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(settings, told):
    with pytest.raises(UsageError, match=told) as refused:
        parse_settings(settings, "config.json")
    assert str(refused.value).startswith("config.json: mirror")


@pytest.mark.parametrize("listen", ["http://172.17.0.1:19000", "http://[::1]:19000", "http://127.0.0.1:1"])
def test_an_address_that_containers_reach_may_listen_too(listen):
    assert parse_settings({"listen": listen}, "x").listen == listen


# -------------------------------------------------------------------------------------------------- routes


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        (OLD, f"http://{OLD_KEY}@127.0.0.1:19000/7"),
        (f"http://{OLD_KEY}:hush@s.example.org:9000/base/7", f"http://{OLD_KEY}@127.0.0.1:19000/base/7"),
        (f"https://{OLD_KEY}@[2001:db8::1]/7", f"http://{OLD_KEY}@127.0.0.1:19000/7"),
    ],
)
def test_the_mirrors_dsn_is_the_old_one_at_the_listener(old, wanted):
    assert mirror_dsn(parse_dsn(old), "http://127.0.0.1:19000") == wanted


def test_services_that_share_a_dsn_share_a_route():
    found = routes(
        [one(), one(service="bot"), one(old=f"https://{OTHER_KEY}@o1.ingest.sentry.io/8")], NginxSettings()
    )
    assert [route.services for route in found] == [("api", "bot"), ("api",)]
    assert found[0].shown() == {
        "services": ["api", "bot"],
        "old": "o1.ingest.sentry.io project 7",
        "new": "127.0.0.1:8080 project 1",
    }


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (one(new=f"http://{OTHER_KEY}@127.0.0.1:8080/2", service="bot"), "api and bot share one DSN"),
        (one(old=f"https://{OLD_KEY}@o2.ingest.sentry.io/7", service="bot"), "one key at two addresses"),
        (one(old=f"http://{OLD_KEY}@o1.ingest.sentry.io/7", service="bot"), "one key at two addresses"),
        (one(old=f"https://{OLD_KEY}@o1.ingest.sentry.io/base/7", service="bot"), "one key at two addresses"),
        (one(old=f"http://{OTHER_KEY}@127.0.0.1:19000/7", service="bot"), "already points at the mirror"),
        (one(new=f"http://{OTHER_KEY}@127.0.0.1:19000/7", service="bot"), "already points at the mirror"),
        (one(old=NEW, service="bot"), "are the same"),
    ],
)
def test_what_the_mirror_could_not_tell_apart_is_refused_without_a_key(second, told):
    with pytest.raises(CutoverError, match=told) as refused:
        routes([one(), second], NginxSettings())
    assert not [secret for secret in SECRETS if secret in str(refused.value)]


# ----------------------------------------------------------------------------------------------- rendering


def test_the_same_routes_give_the_same_bytes_and_any_change_another_revision():
    assert rendered() == rendered()
    revisions = {
        revision_of(text)
        for text in (
            rendered(),
            rendered(one(new=NEW + "1")),
            rendered(answer_timeout=3),
            rendered(concurrent=8),
        )
    }
    assert len(revisions) == 4


def test_each_old_tracker_has_its_own_scheme_and_name():
    text = rendered(one(), one(old=f"http://{OTHER_KEY}@sentry.example.org:9000/9", service="bot"))
    assert f'"{OLD_KEY}/7" "https://o1.ingest.sentry.io";' in text
    assert f'"{OTHER_KEY}/9" "http://sentry.example.org:9000";' in text
    assert "resolver 192.0.2.53 ipv6=off;" in text
    assert "proxy_ssl_verify on;" in text
    assert "keepalive_timeout 0;" in text


def test_a_name_that_the_hosts_file_knows_is_written_as_its_address_under_its_own_name():
    names = Names(hosts={"o1.ingest.sentry.io": "192.0.2.9"})
    text = rendered(names=names)
    assert '"https://192.0.2.9";' in text
    assert '"o1.ingest.sentry.io";' in text
    assert "resolver " not in text


def test_a_name_without_a_name_server_is_refused():
    with pytest.raises(CutoverError, match=r"could not resolve o1\.ingest\.sentry\.io"):
        rendered(names=Names())


def test_a_key_with_dashes_is_known_in_both_spellings():
    dashed = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"
    text = rendered(one(old=f"https://{dashed}@o1.ingest.sentry.io/7"))
    assert f'"{dashed}/7" "{NEW_KEY}";' in text
    assert f'"{OLD_KEY}/7" "{NEW_KEY}";' in text


def test_a_foreign_file_has_no_revision():
    with pytest.raises(CutoverError, match="not written by this program"):
        revision_of("server {}")


def test_name_servers_and_hosts_are_read_as_nginx_can_use_them(tmp_path):
    (tmp_path / "resolv").write_text(
        "# comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n"
        "nameserver 2001:db8::53\nnameserver\nnameserver nonsense\nnameserver 192.0.2.1\n"
    )
    (tmp_path / "hosts").write_text(
        "::1 localhost\n127.0.0.1 localhost other # more\nnonsense x\n2001:db8::9 six\n"
    )
    (tmp_path / "route").write_text("Iface Destination Gateway\neth0 00000000 0101A8C0\n")
    found = read_names(tmp_path / "resolv", tmp_path / "hosts", tmp_path / "route")
    assert found.servers == ("192.0.2.1", "[2001:db8::53]")
    assert found.hosts == {"localhost": "127.0.0.1", "other": "127.0.0.1", "six": "[2001:db8::9]"}
    assert not found.ipv6
    nothing = read_names(tmp_path / "none", tmp_path / "none", tmp_path / "none")
    assert nothing == Names(ipv6=True)


# ----------------------------------------------------------------------------------------------- configure


def test_configuring_writes_checks_and_takes_it_on_and_a_repeat_changes_nothing(place):
    first = place.run()
    assert first["changed"]
    assert first["routes"] == [
        {
            "services": ["api", "bot"],
            "old": "o1.ingest.sentry.io project 7",
            "new": "127.0.0.1:8080 project 1",
        }
    ]
    file = place.root / "conf/nginx.conf"
    assert file.stat().st_mode & 0o777 == 0o640
    assert place.nginx.checked == [file.read_text()]
    assert place.nginx.running == first["revision"]
    assert place.reached == ["o1.ingest.sentry.io project 7"]
    assert place.run() == {**first, "changed": False}
    assert place.nginx.takes == 1
    assert list(file.parent.iterdir()) == [file]
    told = json.dumps(first) + "".join(place.told)
    assert not [secret for secret in SECRETS if secret in told]


def test_an_nginx_that_stopped_is_started_again(place):
    place.run()
    place.nginx.running = ""
    assert place.run()["changed"]
    assert place.nginx.takes == 2


def test_a_service_with_its_own_file_and_new_dsn_has_its_own_route(place):
    own = f"https://{OTHER_KEY}@o1.ingest.sentry.io/8"
    (place.root / "own.dsn").write_text(f"http://{NEW_KEY}@127.0.0.1:8080/2")
    place.document["services"] = [
        "api",
        {
            "name": "bot",
            "env_file": str(place.root / "bot.env"),
            "dsn_file": str(place.root / "own.dsn"),
            "project": "bot",
        },
    ]
    save_before(
        place.root / "state/before/services.json",
        Before(
            dsn=OLD,
            carried={"api": None, "bot": None},
            pids={},
            files={str(place.root / ".env"): OLD, str(place.root / "bot.env"): own},
            sources={"api": str(place.root / ".env"), "bot": str(place.root / "bot.env")},
        ),
    )
    assert [(route["services"], route["new"]) for route in place.run()["routes"]] == [
        (["api"], "127.0.0.1:8080 project 1"),
        (["bot"], "127.0.0.1:8080 project 2"),
    ]


def test_the_dsn_of_a_file_has_a_route_although_every_service_is_given_another(place):
    carried = f"https://{OTHER_KEY}@o1.ingest.sentry.io/8"
    save_before(
        place.root / "state/before/services.json",
        Before(dsn=OLD, carried={"api": carried, "bot": carried}, pids={}),
    )
    assert [route["services"] for route in place.run()["routes"]] == [
        ["api", "bot"],
        [str(place.root / ".env")],
    ]


def test_what_nginx_refuses_never_gets_the_name_and_the_sentence_holds_no_key(place):
    place.nginx.problem = f'unexpected "{OLD_KEY}" in nginx.conf:12'
    with pytest.raises(CutoverError, match="nothing was changed") as refused:
        place.run()
    assert OLD_KEY not in str(refused.value)
    assert list((place.root / "conf").iterdir()) == []
    assert place.nginx.takes == 0


def test_when_nginx_does_not_take_it_on_the_file_of_before_is_back_and_answers(place):
    first = place.run()
    before = (place.root / "conf/nginx.conf").read_bytes()
    place.document["mirror"]["answer_timeout"] = 7
    place.nginx.deaf = 1
    with pytest.raises(CutoverError, match="the configuration of before is back and answers"):
        place.run()
    assert (place.root / "conf/nginx.conf").read_bytes() == before
    assert place.nginx.running == first["revision"]


def test_when_the_first_one_is_not_taken_on_nothing_is_left(place):
    place.nginx.deaf = 1
    with pytest.raises(CutoverError, match="taken away again"):
        place.run()
    assert list((place.root / "conf").iterdir()) == []


@pytest.mark.parametrize("kind", [CutoverError, InterruptedRunError, OSError, ValueError, KeyError, RecursionError])
@pytest.mark.parametrize("call", ["take", "revision", "fsync_directory"])
@pytest.mark.parametrize("repeated", [False, True])
def test_whatever_fails_leaves_what_was_there_before(place, monkeypatch, kind, call, repeated):
    """Each call after the configuration got its name fails once."""
    first = place.run() if repeated else {"revision": ""}
    kept = [(file.name, file.read_bytes()) for file in (place.root / "conf").iterdir()]
    place.document["mirror"]["answer_timeout"] = 7
    owner = mirror if call == "fsync_directory" else place.nginx
    whole = getattr(owner, call)
    calls = iter([kind("gone")])

    def failing(*given):
        if error := next(calls, None):
            raise error
        return whole(*given)

    monkeypatch.setattr(owner, call, failing)
    with pytest.raises(CutoverError, match="is back and answers" if repeated else "taken away again") as failed:
        place.run()
    assert failed.value.exit_code == 1
    assert [(file.name, file.read_bytes()) for file in (place.root / "conf").iterdir()] == kept
    assert not repeated or place.nginx.running == first["revision"]


def test_an_nginx_that_answers_with_neither_configuration_is_no_refusal(place, monkeypatch):
    place.run()
    before = (place.root / "conf/nginx.conf").read_bytes()
    place.document["mirror"]["answer_timeout"] = 7
    monkeypatch.setattr(place.nginx, "revision", lambda: "")
    with pytest.raises(IncompleteError, match="does not run with its configuration of before"):
        place.run()
    assert (place.root / "conf/nginx.conf").read_bytes() == before


def test_an_old_tracker_that_cannot_be_reached_gets_no_mirror(place):
    def refuse(_dsn, _settings):
        raise CutoverError("the certificate is not valid")

    with pytest.raises(CutoverError, match="the certificate is not valid"):
        configure(place.config(), place.host, server=place.nginx, names=NAMES, reaching=refuse)
    assert list((place.root / "conf").iterdir()) == []
    assert place.nginx.takes == 0


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda place: (place.root / "state/before/snapshot.json").unlink(), "no snapshot"),
        (lambda place: (place.root / "dsn").unlink(), "there is no file"),
        (lambda place: place.document.pop("new"), "the new tracker is not set up yet"),
        (lambda place: (place.root / "conf").rmdir(), "run the parallel run's role first"),
        (lambda place: place.document["mirror"].update(user="nobody-of-this-name"), "there is no user"),
    ],
)
def test_what_is_missing_is_one_sentence_and_nothing_is_written(place, spoil, told):
    spoil(place)
    with pytest.raises(CutoverError, match=told):
        place.run()
    assert not (place.root / "conf/nginx.conf").exists()


# ------------------------------------------------------------------------------------------------- entering


def test_services_may_enter_a_mirror_that_answers_with_todays_dsns_and_no_other(place):
    def told():
        return problem(place.config(), server=place.nginx, names=NAMES)

    assert "not configured on this host" in told()
    place.run()
    assert told() == ""
    place.nginx.running = ""
    assert "nothing answers as the mirror at http://127.0.0.1:19000" in told()
    place.nginx.running = revision_of((place.root / "conf/nginx.conf").read_text())
    (place.root / "dsn").write_text(f"http://{OTHER_KEY}@127.0.0.1:8080/1")
    assert "other DSNs" in told()
    (place.root / "conf/nginx.conf").write_text("server {}")
    assert "not written by this program" in told()


# -------------------------------------------------------------------------------------------------- remove


def test_removing_is_refused_while_a_file_or_a_service_still_reports_to_the_mirror(place):
    place.run()
    mirrored = mirror_dsn(parse_dsn(OLD), "http://127.0.0.1:19000")
    (place.root / ".env").write_text(f"SENTRY_DSN={mirrored}\n")
    with pytest.raises(CutoverError, match=r"\.env still report"):
        remove(place.config(), place.host)
    (place.root / ".env").write_text(f"SENTRY_DSN={OLD}\n")
    place.processes.append(SimpleNamespace(name="bot", environment={"SENTRY_DSN": mirrored}))
    with pytest.raises(CutoverError, match="bot still report"):
        remove(place.config(), place.host)
    assert (place.root / "conf/nginx.conf").exists()
    place.processes.clear()
    assert remove(place.config(), place.host)["changed"]
    assert not (place.root / "conf/nginx.conf").exists()
    assert not remove(place.config(), place.host)["changed"]


def test_removing_is_refused_for_a_file_that_cannot_be_parsed_and_names_the_mirror(place):
    place.run()
    mirrored = mirror_dsn(parse_dsn(OLD), "http://127.0.0.1:19000")
    (place.root / ".env").write_text(f"SENTRY_DSN='{mirrored}\n")
    with pytest.raises(CutoverError, match="still report"):
        remove(place.config(), place.host)
    assert (place.root / "conf/nginx.conf").exists()
