"""What happens to a connection after an answer: the trap of the 5.2 line's default web server."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

import pytest
import requests


@pytest.mark.line("5.2")
def test_either_every_answer_ends_its_connection_or_none_does(server):
    """uWSGI ends it, granian keeps it; ``UWSGI_ADD_HEADER=Connection: close`` only makes uWSGI say so."""
    assert len({survives(server) for _ in range(10)}) == 1


@pytest.mark.line("5.2")
def test_a_connection_that_ends_without_a_word_ends_before_an_answer_is_begun(server):
    """So that a read which was lost that way may be sent again: nobody has begun to answer it."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", "/_health/")
    answer = connection.getresponse()
    answer.read()
    assert answer.version == 11
    try:
        connection.request("GET", "/_health/")
        again = connection.getresponse()
    except http.client.RemoteDisconnected as ended:
        assert "without response" in str(ended)  # noqa: PT017 - a kept connection is the other right outcome
    except ConnectionError:
        pass
    else:
        assert (again.status, again.read()) == (200, b"ok")
    connection.close()


def survives(server):
    """Whether a connection takes a second request a moment after the first was answered."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        for _ in range(2):
            connection.auto_open = connection.sock is None
            connection.request("GET", "/_health/")
            answer = connection.getresponse()
            answer.read()
            if answer.will_close:
                return False
            time.sleep(0.05)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


@pytest.mark.line("6.2", provenance="document: CHANGELOG 6.0.0, granian is the web server")
def test_a_connection_stays_open(server):
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    for _ in range(5):
        connection.request("GET", "/_health/")
        answer = connection.getresponse()
        assert answer.read() == b"ok"
        assert not answer.will_close
    connection.close()


def test_one_connection_a_request_never_fails(server):
    codes = [requests.get(f"{server.url}/_health/", timeout=20).status_code for _ in range(40)]
    assert codes == [200] * 40
