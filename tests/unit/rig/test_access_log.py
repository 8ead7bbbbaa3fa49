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


UWSGI = """[pid: 12|app: 0|req: 7/7] 172.18.0.1 () {32 vars in 420 bytes} [2026-11-21T08:00:01] GET /api/0/organizations/ => generated 2 bytes in 9 msecs (HTTP/1.1 200) 6 headers in 200 bytes (1 switches on core 0)
[pid: 12|app: 0|req: 8/8] 172.18.0.1 () {32 vars in 420 bytes} [2026-11-21T08:00:02] POST /api/1/envelope/ => generated 45 bytes in 6 msecs (HTTP/1.1 200) 6 headers in 200 bytes (1 switches on core 0)
[pid: 12|app: 0|req: 9/9] 172.18.0.1 () {34 vars in 500 bytes} [2026-11-21T08:00:03] DELETE /api/0/projects/a/b/ => generated 0 bytes in 30 msecs (HTTP/1.1 204) 5 headers in 150 bytes (1 switches on core 0)
"""  # noqa: E501


def test_the_log_of_uwsgi_is_read_alike():
    assert access_of(UWSGI) == Access(1, ("DELETE /api/0/projects/a/b/ => 204",))
