"""Steps are made in stages, several at once; the first failure ends it, and what happened is told."""

from __future__ import annotations

import threading

import pytest

from glitchtip_api.configuration.applying import _groups, apply
from glitchtip_api.configuration.planning import Plan, Step
from glitchtip_api.configuration.structure import Where
from glitchtip_api.ensure import Outcome
from glitchtip_api.errors import GlitchTipError

WHERE = Where("Acme")
FORESEEN = Outcome(True, None, {"name": "x"}, predicted=True)


def step(name, act, kind="team"):
    return Step("create", kind, name, WHERE, FORESEEN, act)


def done(_client, dry_run):
    assert dry_run is False
    return Outcome(True, None, {"name": "x"}, warnings=("told twice",))


def broken(_client, _dry_run):
    raise GlitchTipError("POST", "/x/", 500, "server_error")


def test_stages_follow_each_other_and_the_result_is_in_the_order_of_the_plan():
    seen = []
    lock = threading.Lock()

    def act(name):
        def run(client, dry_run):
            with lock:
                seen.append(name)
            return done(client, dry_run)

        return run

    stages = (
        tuple(step(f"a{n}", act(f"a{n}")) for n in range(5)),
        tuple(step(f"b{n}", act(f"b{n}")) for n in range(5)),
    )
    result = apply(None, Plan(stages, (), ()), 3)
    assert {name[0] for name in seen[:5]} == {"a"}
    assert [made.name for made, _ in result.made] == [f"{s}{n}" for s in "ab" for n in range(5)]
    assert result.warnings == ["told twice"]
    assert (result.failed, result.pending) == ([], [])


def test_several_steps_are_under_way_at_once_but_no_more_than_allowed():
    meeting = threading.Barrier(3, timeout=5)
    under_way, most = [], []
    lock = threading.Lock()

    def act(client, dry_run):
        with lock:
            under_way.append(1)
            most.append(len(under_way))
        meeting.wait()
        with lock:
            under_way.pop()
        return done(client, dry_run)

    apply(None, Plan((tuple(step(f"t{n}", act) for n in range(6)),), (), ()), 3)
    assert max(most) == 3


@pytest.mark.parametrize(
    ("kind", "names"), [("organization", ["a", "b", "c"]), ("project", ["Shop 1", "shop-1", "SHOP 1"])]
)
def test_steps_that_could_get_one_slug_are_never_side_by_side(kind, names):
    under_way = []

    def act(client, dry_run):
        under_way.append(1)
        assert len(under_way) == 1
        under_way.pop()
        return done(client, dry_run)

    stage = tuple(step(name, act, kind) for name in names)
    result = apply(None, Plan((stage,), (), ()), 3)
    assert [made.name for made, _ in result.made] == names


def test_the_first_failure_ends_it_and_the_rest_is_pending():
    stages = (
        (step("one", done),),
        (step("two", broken),),
        (step("three", done), step("four", done)),
    )
    result = apply(None, Plan(stages, (), ()), 2)
    assert [made.name for made, _ in result.made] == ["one"]
    assert [(failed.name, error.status) for failed, error in result.failed] == [("two", 500)]
    assert [pending.name for pending in result.pending] == ["three", "four"]


def test_projects_that_need_each_others_slug_follow_each_other():
    """"X" is created under the slug x and moved to shop, where "Shop" is created at the same time."""

    def project(name, slug, organization="Acme"):
        foreseen = Outcome(True, None, {"name": name, "slug": slug}, predicted=True)
        return Step("create", "project", name, Where(organization), foreseen, done)

    chain = [project("X", "shop"), project("Shop", "www"), project("www", "last")]
    others = [project("Other", "other"), project("X", "x", "Elsewhere")]
    groups = _groups([chain[0], others[0], chain[2], others[1], chain[1]])
    assert sorted(sorted(step.name for step in group) for group in groups) == [["Other"], ["Shop", "X", "www"], ["X"]]


def test_status_pages_of_one_organization_follow_each_other():
    """Names without Latin letters all have the empty slug, which the server counts up."""

    def page(name, organization="Acme"):
        return Step("create", "status_page", name, Where(organization), Outcome(True, None, {}, predicted=True), done)

    groups = _groups([page("Заказы"), page("Дом"), page("Заказы", "Elsewhere"), page("Shop")])
    names = sorted([step.name for step in group] for group in groups)
    assert names == [["Заказы"], ["Заказы", "Дом", "Shop"]]
