"""What the demo reads in the log of the server's requests."""

from __future__ import annotations

from rig.demo import Access, access_of

LOG = """2026-11-21 08:00:01,000 INFO glitchtip.access GET /api/0/organizations/ => 200
2026-11-21 08:00:01,200 INFO glitchtip.access HEAD /api/0/ => 200
2026-11-21 08:00:02,000 INFO glitchtip.access POST /api/1/envelope/ => 200
2026-11-21 08:00:02,500 INFO glitchtip.access GET /api/settings/ => 200
2026-11-21 08:00:03,000 ERROR glitchtip.web something else
"""


def test_reads_of_the_management_api_are_counted():
    assert access_of(LOG) == Access(2, ())


def test_every_write_is_told():
    more = (
        "x glitchtip.access POST /_allauth/browser/v1/auth/login => 200\n"
        "x glitchtip.access PUT /api/0/projects/a/b/ => 403\n"
    )
    assert access_of(LOG + more) == Access(
        2, ("POST /_allauth/browser/v1/auth/login => 200", "PUT /api/0/projects/a/b/ => 403")
    )
