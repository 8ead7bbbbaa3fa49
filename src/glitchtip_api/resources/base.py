"""What a resource needs of the client, and how its paths are put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from ..errors import InvalidError, NotJsonError

if TYPE_CHECKING:
    from ..answers import Response
    from ..transport import Transport

Objects = list[dict[str, Any]]


class Requests(Protocol):
    """The part of `Client` that resources use."""

    transport: Transport

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any: ...  # noqa: D102
    def post(self, path: str, json: Any = None) -> Any: ...  # noqa: D102
    def put(self, path: str, json: Any = None, params: Mapping[str, Any] | None = None) -> Any: ...  # noqa: D102
    def get_or_none(self, path: str) -> Any | None: ...  # noqa: D102
    def remove(self, path: str) -> bool: ...  # noqa: D102
    def paginate(  # noqa: D102
        self, path: str, params: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]: ...
    def request(  # noqa: D102
        self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None
    ) -> Response: ...


class Resource:
    """One kind of object of the API."""

    def __init__(self, client: Requests) -> None:
        self._client = client


def path_of(*parts: object) -> str:
    """``/api/0/a/b/`` from ("a", "b"): each part quoted, with the trailing slash that the API demands.

    Raises InvalidError for a part that is empty or a dot or two: HTTP clients resolve those, and a DELETE of
    the release ".." would be one of its organization.
    """
    for part in parts:
        if str(part) in ("", ".", ".."):
            raise InvalidError(
                code="bad_path", detail=f"{str(part)!r} is no name that the API can be asked for"
            )
    return "/api/0/" + "".join(quote(str(part), safe="") + "/" for part in parts)


def one(data: Any, path: str) -> dict[str, Any]:
    """The answer as one object. Raises NotJsonError when it is something else."""
    if not isinstance(data, dict):
        raise NotJsonError("", path, None, "not_an_object", "the server answered something that is no object")
    return data
