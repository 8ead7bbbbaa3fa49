"""What happens to a connection after an answer: the trap of the 5.2 line's default web server."""

from __future__ import annotations

import http.client
from urllib.parse import urlsplit

import pytest
import requests


@pytest.mark.line("5.2")
def test_an_answer_says_connection_close_or_the_connection_ends_without_a_word(server):
    """``UWSGI_ADD_HEADER=Connection: close`` makes the difference; a client must survive both."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", "/_health/")
    answer = connection.getresponse()
    answer.read()
    assert answer.version == 11
    if answer.getheader("Connection") is None:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            ask_again(connection)
    else:
        assert answer.getheader("Connection").lower() == "close"
    connection.close()


def ask_again(connection):
    connection.request("GET", "/_health/")
    connection.getresponse()


@pytest.mark.line("6.2", provenance="documented: CHANGELOG 6.0.0, granian is the web server")
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
