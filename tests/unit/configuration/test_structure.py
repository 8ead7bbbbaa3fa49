"""A desired state that contradicts itself is refused before anyone is asked, with every place named."""

from __future__ import annotations

import pytest

from glitchtip_api.configuration import ConfigurationError
from glitchtip_api.configuration.structure import check


@pytest.fixture
def refused(fill):
    def of(*organizations):
        with pytest.raises(ConfigurationError) as caught:
            check(fill(list(organizations)))
        return str(caught.value)

    return of


def test_what_is_whole_is_taken(whole):
    check(whole)


def test_projects_of_one_name_are_told_apart_by_their_slugs(fill):
    check(fill([{"name": "Acme", "projects": [{"name": "Shop", "slug": "a"}, {"name": "Shop", "slug": "b"}]}]))


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"teams": ["a", "a"]}, "the team 'a' is given 2 times in organization 'Acme'"),
        (
            {"members": [{"email": "Dev@example.org"}, {"email": "dev@example.org"}]},
            "the member 'dev@example.org' is given 2 times in organization 'Acme'",
        ),
        (
            {"projects": [{"name": "Shop"}, {"name": "Shop"}]},
            "the project 'Shop' is given 2 times in organization 'Acme'",
        ),
        (
            {"projects": [{"name": "Shop"}, {"name": "Shop", "slug": "shop-2"}]},
            "the project 'Shop' is given 2 times in organization 'Acme'; give each of them its slug",
        ),
        (
            {"projects": [{"name": "Shop", "slug": "a"}, {"name": "Shop", "slug": "b", "keys": ["k", "k"]}]},
            "the key 'k' is given 2 times in organization 'Acme', project 'Shop' (slug b)",
        ),
        (
            {"projects": [{"name": "A", "slug": "x"}, {"name": "B", "slug": "x"}]},
            "the project slug 'x' is given 2 times in organization 'Acme'",
        ),
        (
            {"projects": [{"name": "Shop", "keys": ["k", "k"]}]},
            "the key 'k' is given 2 times in organization 'Acme', project 'Shop'",
        ),
        (
            {"projects": [{"name": "Shop", "alerts": [{"name": "a"}, {"name": "a"}]}]},
            "the alert 'a' is given 2 times in organization 'Acme', project 'Shop'",
        ),
        (
            {"monitors": [{"name": "m", "type": "GET"}, {"name": "m", "type": "Ping"}]},
            "the monitor 'm' is given 2 times in organization 'Acme'",
        ),
        (
            {"status_pages": [{"name": "s"}, {"name": "s"}]},
            "the status page 's' is given 2 times in organization 'Acme'",
        ),
        (
            {"teams": ["a"], "projects": [{"name": "Shop", "teams": ["b"]}]},
            "the project 'Shop' names the team 'b', which is not among the teams of organization 'Acme'",
        ),
        (
            {"teams": ["a"], "members": [{"email": "dev@example.org", "teams": ["b"]}]},
            (
                "the member 'dev@example.org' names the team 'b', which is not among the teams of "
                "organization 'Acme'"
            ),
        ),
    ],
)
def test_each_contradiction_has_its_sentence(refused, part, sentence):
    assert refused({"name": "Acme", **part}) == sentence


def test_two_organizations_of_one_name(refused):
    assert refused({"name": "Acme"}, {"name": "Acme"}) == "the organization 'Acme' is given 2 times"


def test_all_contradictions_are_named_at_once_and_none_is_cut_off(refused):
    projects = [{"name": f"Project number {n}"} for n in range(40) for _ in range(2)]
    sentence = refused({"name": "Acme", "projects": projects})
    assert sentence.count("is given 2 times") == 40


def test_a_team_that_only_the_server_has_may_be_named_when_teams_are_not_managed(fill):
    check(fill([{"name": "Acme", "projects": [{"name": "Shop", "teams": ["theirs"]}]}]))
