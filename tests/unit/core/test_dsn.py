"""Two parsers of DSNs, because the API client stands alone: both read the same vectors alike."""

from __future__ import annotations

import pytest

from glitchtip_api import GlitchTipError
from glitchtip_api import parse_dsn as parse_client_dsn
from glitchtip_core.dsn import parse_dsn, shown
from glitchtip_core.errors import CoreError

KEY = "0123456789abcdef0123456789abcdef"
#: DSN -> what may be shown of it, its project, where its events go.
GOOD = {
    f"https://{KEY}@errors.example.org/1": ("errors.example.org", "1", "/api/1/envelope/"),
    f"http://{KEY}@127.0.0.1:8080/23": ("127.0.0.1:8080", "23", "/api/23/envelope/"),
    f"http://{KEY}@[2001:db8::1]:8080/2": ("[2001:db8::1]:8080", "2", "/api/2/envelope/"),
    f"https://{KEY}@errors.example.org/below/here/7": ("errors.example.org", "7", "/below/here/api/7/envelope/"),
    f"https://{KEY}:{KEY}@errors.example.org/1": ("errors.example.org", "1", "/api/1/envelope/"),
    "https://01234567-89ab-cdef-0123-456789abcdef@errors.example.org/1": ("errors.example.org", "1", "/api/1/envelope/"),
}
BAD = [
    "",
    "errors.example.org",
    "https://errors.example.org/1",
    f"ftp://{KEY}@errors.example.org/1",
    f"https://{KEY}@/1",
    f"https://{KEY}@errors.example.org",
    f"https://{KEY}@errors.example.org/",
    f"https://{KEY}@errors.example.org/one",
    f"https://{KEY}@errors.example.org:port/1",
    f"https://{KEY}@errors.example.org:70000/1",
    f"https://{KEY}@errors.example.org/1?x=1",
    f"https://{KEY}@errors.example.org/1#x",
]


@pytest.mark.parametrize(("text", "expected"), GOOD.items(), ids=[shown(text) for text in GOOD])
def test_both_read_a_dsn_alike(text: str, expected: tuple[str, str, str]) -> None:
    netloc, project, path = expected
    ours, clients = parse_dsn(text), parse_client_dsn(text)
    assert (ours.netloc, ours.project_id, ours.key) == (netloc, project, KEY)
    assert (clients.host, clients.project_id, clients.key) == (netloc, project, KEY)
    assert ours.envelope_url == f"{clients.base_url}{clients.envelope_path}" == f"{ours.scheme}://{netloc}{path}"
    assert KEY not in f"{ours} {ours!r} {clients} {clients!r}"


@pytest.mark.parametrize("text", BAD)
def test_both_refuse_what_is_none(text: str) -> None:
    with pytest.raises(CoreError) as ours:
        parse_dsn(text)
    with pytest.raises(GlitchTipError) as clients:
        parse_client_dsn(text)
    assert KEY not in f"{ours.value} {clients.value}"
    assert shown(text) == ("invalid" if text else "-")
