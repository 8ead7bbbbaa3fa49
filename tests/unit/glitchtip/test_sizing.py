"""Memory follows from the backlog: limits hold it, phase 0 demands it, and numbers that cannot be meant are refused with what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
import sizing as subject
import yaml
from ansible.errors import AnsibleFilterError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

MODELS = {
    "5.2 thread": {"version": "5.2.0"},
    "5.2 process": {"version": "5.2.1"},
    "5.2 own command": {"version": "5.2.0", "worker_command": ["celery", "worker"]},
    "6.2 split": {"version": "6.2.6"},
    "6.2 all_in_one": {"version": "v6.2.6", "process_model": "all_in_one"},
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
BACKLOGS = [1_000, 5_100, 20_000, 21_337, 100_000, 2_000_000]


def mib(found, service):
    return subject.mebibytes(found["services"][service]["memory"])


@every_model
@pytest.mark.parametrize("events", BACKLOGS)
def test_valkey_and_the_required_memory_hold_the_backlog(model, events):
    found = subject.glitchtip_sizing(**model, backlog_events=events)
    queue = events * subject.QUEUED_EVENT_BYTES / subject.MIB
    assert mib(found, "valkey") >= queue * 1.25 + subject.VALKEY_IDLE_MIB
    assert found["required_mib"] >= found["working_mib"] + queue
    assert subject.backlog_of_valkey(mib(found, "valkey")) >= events // 100 * 100


@every_model
def test_more_backlog_never_needs_less(model):
    found = [subject.glitchtip_sizing(**model, backlog_events=events) for events in BACKLOGS]
    for key in ("required_mib", "backlog_mib"):
        values = [one[key] for one in found]
        assert values == sorted(set(values))
    limits = [mib(one, "valkey") for one in found]
    assert limits == sorted(limits)


@every_model
def test_larger_events_need_more(model):
    small, large = (subject.glitchtip_sizing(**model, event_bytes=size) for size in (12_600, 60_000))
    assert mib(large, "valkey") > 4 * mib(small, "valkey") - 64
    assert large["backlog_mib"] > 4 * small["backlog_mib"]


@every_model
def test_postgresql_holds_every_backend_that_the_pools_may_open(model):
    """From the 6.x source: a synchronous and an asynchronous pool in each process; 5.2 has one."""
    found = subject.glitchtip_sizing(**model)
    pools = 2 if model["version"].removeprefix("v").startswith("6") else 1
    connections = found["pool"] * pools * len({"web", "worker"} & found["services"].keys())
    assert mib(found, "postgres") >= connections * subject.BACKEND_MIB + subject.SHARED_BUFFERS_MIB


@pytest.mark.parametrize("version", ["5.2.0", "5.2.1"])
@pytest.mark.parametrize("size", [1_000, 12_600, 57_000, 65_536, 200_000])
def test_the_worker_holds_batches_of_large_events(version, size):
    """A worker of 192 MiB was killed by batches of events that took 57 kB each in Valkey, and lost 190 of them."""
    found = subject.glitchtip_sizing(version, event_bytes=size)
    batches = subject.EVENTS_IN_HAND * max(57_000, size) * subject.HANDLING_FACTOR / subject.MIB
    assert mib(found, "worker") >= 140 + batches


def test_the_limits_that_failed_are_refused_or_exceeded():
    """64m of Valkey, 112m of PostgreSQL and 240m of a stock worker were too small on a real 5.2."""
    found = subject.glitchtip_sizing("5.2.1")
    assert mib(found, "valkey") > 64
    assert mib(found, "postgres") > 112
    assert mib(found, "worker") > 240
    with pytest.raises(AnsibleFilterError, match=r"valkey of 64 MiB holds \d+ waiting events.*20000.*remove"):
        subject.glitchtip_sizing("5.2.0", resources={"valkey": {"memory": "64m"}})


def test_the_scheduler_is_a_thread_only_where_that_is_known():
    beats = {name: subject.glitchtip_sizing(**model)["beat"] for name, model in MODELS.items()}
    assert {name for name, beat in beats.items() if beat == "thread"} == {"5.2 thread"}
    thread, process = (subject.glitchtip_sizing(**MODELS[name]) for name in ("5.2 thread", "5.2 process"))
    assert thread["working_mib"] < process["working_mib"]
    assert mib(thread, "worker") < mib(process, "worker")
    assert thread["working_mib"] <= 390


@every_model
def test_figures_name_their_source(model):
    measured = str(model["version"]).startswith("5")
    basis = subject.glitchtip_sizing(**model)["basis"]
    assert basis.startswith("measured") if measured else "not measured" in basis


@every_model
def test_an_override_replaces_one_value_of_one_service(model):
    before = subject.glitchtip_sizing(**model)["services"]
    after = subject.glitchtip_sizing(**model, resources={"web": {"cpus": "0.90"}})["services"]
    assert after["web"] == {**before["web"], "cpus": "0.90"}
    assert {**after, "web": before["web"]} == before


@every_model
@pytest.mark.parametrize("service", ["web", "postgres"])
@pytest.mark.parametrize("memory", ["32m", "64m", "100M", "2g"])
def test_an_override_of_the_limit_keeps_the_reservation_below_it(model, service, memory):
    """The engine refuses a container whose reservation exceeds its limit."""
    found = subject.glitchtip_sizing(**model, resources={service: {"memory": memory}})["services"][service]
    assert subject.mebibytes(found["reserve"]) <= subject.mebibytes(found["memory"])


@pytest.mark.parametrize("events", [0, -1, 999, "many", "", None, True, 1.5, "2e4", 10**9])
def test_a_backlog_that_is_no_sensible_number_is_refused(events):
    with pytest.raises(AnsibleFilterError, match="glitchtip_backlog_events must be a whole number from 1000"):
        subject.glitchtip_sizing("5.2.0", backlog_events=events)


@pytest.mark.parametrize("events", [20_000, "20000", " 20000 "])
def test_a_number_of_the_command_line_is_a_number(events):
    assert subject.glitchtip_sizing("5.2.0", backlog_events=events)["backlog_events"] == 20_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"resources": {"redis": {"memory": "64m"}}},
            "no service 'redis', only postgres, valkey, web, worker",
        ),
        ({"resources": {"web": {"memory": "much"}}}, "number with m or g"),
        ({"resources": {"web": {"memory": "300"}}}, "number with m or g"),
        (
            {"resources": {"web": {"memory": "64m", "reserve": "65m"}}},
            "web reserves 65m of a limit of 64 MiB",
        ),
        ({"resources": {"web": {"share": 128}}}, "web must be a mapping of cpus, memory, reserve, shares"),
        ({"resources": {"web": None}}, "web must be a mapping"),
        ({"resources": {"web": {"shares": None}}}, "web.shares must be a whole number from 2"),
        ({"resources": {"web": {"shares": 0}}}, "web.shares must be a whole number from 2"),
        ({"resources": {"web": {"shares": "0.5"}}}, "web.shares must be a whole number from 2"),
        ({"resources": {"web": {"cpus": "half"}}}, "web.cpus must be a number of CPUs"),
        ({"resources": {"web": {"cpus": 0}}}, "web.cpus must be a number of CPUs"),
        ({"resources": {"web": {"reserve": "1"}}}, "number with m or g"),
        ({"event_bytes": 10}, "glitchtip_queued_event_bytes must be a whole number"),
        ({"version": "latest"}, "full version"),
        ({"version": "6"}, "full version"),
    ],
)
def test_other_nonsense_is_refused_with_what_is_possible(options, words):
    with pytest.raises(AnsibleFilterError, match=words):
        subject.glitchtip_sizing(**{"version": "5.2.0", **options})


@every_model
@pytest.mark.parametrize("spare", [0, 1, 13, 240, 2000])
def test_the_backlog_that_is_offered_fits(model, spare):
    found = subject.glitchtip_sizing(**model)
    free = found["working_mib"] + spare
    offered = subject.glitchtip_backlog_within(free, found)
    assert offered * found["queued_event_bytes"] <= spare * subject.MIB
    if offered >= subject.MIN_BACKLOG:
        assert subject.glitchtip_sizing(**model, backlog_events=offered)["required_mib"] <= free
    assert subject.glitchtip_backlog_within(found["working_mib"] - 100, found) == 0


@every_model
def test_phase_1_lets_every_version_take_what_phase_0_demands(model):
    """A fixed limit of 500 MiB refused a 6.x that takes what its line is sized for."""
    path = Path(__file__).resolve().parents[3] / "roles/local_test/defaults/main.yml"
    default = yaml.safe_load(path.read_text(encoding="utf-8"))["local_test_max_stack_mib"]
    found = subject.glitchtip_sizing(**model)
    templar = Templar(loader=DataLoader(), variables={"__glitchtip_sizing": found})
    assert int(templar.template(trust_as_template(default))) == found["required_mib"] > found["working_mib"]
    assert int(Templar(loader=DataLoader()).template(trust_as_template(default))) == 500


COLUMNS = [{"version": "5.2.0"}, {"version": "5.2.1"}, {"version": "6.2.6"}, MODELS["6.2 all_in_one"]]


def test_the_page_shows_what_is_derived():
    page = Path(__file__).resolve().parents[3] / "docs/sizing.md"
    lines = [
        line.strip("| ").split(" | ")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line[:2] == "| "
    ]
    rows = {cells[0]: cells[1:] for cells in lines if len(cells) == 5}
    found = [subject.glitchtip_sizing(**model) for model in COLUMNS]
    names = {"web": "web", "worker": "worker", "PostgreSQL": "postgres", "Valkey, backlog 20,000": "valkey"}
    for title, service in names.items():
        assert rows[title] == [one["services"].get(service, {"memory": "-"})["memory"] for one in found]
    assert rows["use under load, MiB"] == [str(one["working_mib"]) for one in found]
    assert rows["required by phase 0, MiB"] == [str(one["required_mib"]) for one in found]
