"""``validate_request``: what may be in a request's head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.requests import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_PATH_BYTES,
    MAX_QUERY_BYTES,
    RequestRefused,
    validate_request,
)

Headers = list[tuple[bytes, bytes]]


def judge(
    *, method: str = "GET", path: str = "/api/v1/tools/", query: bytes = b"", headers: Headers | None = None
) -> RequestRefused | None:
    return validate_request(method=method, path=path, query=query, headers=headers or [])


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"method": "TRACE"}, 405, "protocol.unsupported_type"),
        ({"method": "get"}, 405, "protocol.unsupported_type"),
        ({"path": "/" + "a" * MAX_PATH_BYTES}, 414, "protocol.message_too_large"),
        ({"query": b"a" * (MAX_QUERY_BYTES + 1)}, 414, "protocol.message_too_large"),
        ({"path": "/a\0b"}, 400, "protocol.invalid_message"),
        ({"path": "/a\nb"}, 400, "protocol.invalid_message"),
        ({"query": b"query=%00"}, 400, "protocol.invalid_message"),
        ({"query": b"query=%7F"}, 400, "protocol.invalid_message"),
        ({"headers": [(b"x-a", b"1")] * (MAX_HEADERS + 1)}, 431, "protocol.message_too_large"),
        ({"headers": [(b"x-a", b"1" * MAX_HEADER_BYTES)]}, 431, "protocol.message_too_large"),
        ({"headers": [(b"x-a%d" % n, b"1" * 12_000) for n in range(3)]}, 431, "protocol.message_too_large"),
        ({"headers": [(b"x-a", b"1\x002")]}, 400, "protocol.invalid_message"),
        ({"headers": [(b"x-a", b"1\r\nx-b: 2")]}, 400, "protocol.invalid_message"),
        ({"headers": [(b"authorization", b"a"), (b"Authorization", b"b")]}, 400, "protocol.invalid_message"),
        ({"headers": [(b"idempotency-key", b"a")] * 2}, 400, "protocol.invalid_message"),
        ({"headers": [(b"content-encoding", b"gzip")]}, 415, "protocol.unsupported_type"),
        ({"headers": [(b"content-encoding", b"identity, br")]}, 415, "protocol.unsupported_type"),
    ],
)
def test_what_is_refused(request_: dict[str, object], status: int, code: str) -> None:
    refused = judge(**request_)  # type: ignore[arg-type]  # the table's rows are its arguments
    assert refused is not None
    assert (refused.status, refused.error.code) == (status, code)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"method": "POST", "headers": [(b"content-encoding", b"identity")]},
        {"path": "/" + "a" * (MAX_PATH_BYTES - 1), "query": b"a" * MAX_QUERY_BYTES},
        {"path": "/späße/\u200b"},
        {"query": b"query=a%0Ab%20%09"},
        {"headers": [(b"x-a", b"tab\tand \xff")] * MAX_HEADERS},
    ],
)
def test_what_may_go_on(request_: dict[str, object]) -> None:
    assert judge(**request_) is None  # type: ignore[arg-type]  # as above


@given(
    method=st.text(max_size=8),
    path=st.text(max_size=50),
    query=st.binary(max_size=50),
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=10),
)
def test_no_head_makes_it_fail(method: str, path: str, query: bytes, headers: Headers) -> None:
    judge(method=method, path=path, query=query, headers=headers)
