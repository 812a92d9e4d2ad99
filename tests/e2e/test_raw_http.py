"""What no HTTP library sends, byte for byte: each is refused as the docs say, or the connection ends, and no other one.

``docs/reference/validation.md`` has the bounds. Smuggling lives on a message that two readers end in different places:
behind what is refused nothing more of the connection is looked at.
"""

from __future__ import annotations

import json
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import Keys
from tests.services import Product

pytestmark = pytest.mark.own_web_server

BODY_SECONDS: Final = 30.0
"""What a body has to arrive."""
HEAD_SECONDS: Final = 5.0
TRICKLE_SECONDS: Final = 0.2
SLACK_SECONDS: Final = 15.0
CUT: Final = 0
"""For a status: the connection ended without an answer."""
HOST: Final = b"Host: localhost\r\n"
UPGRADE: Final = (
    b"GET /ws/ HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
)
KEY: Final = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
POST: Final = b"POST /api/v1/auth/token/ HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"
SMUGGLED: Final = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    sent: bytes
    status: int
    code: str | None = None


def get(target: bytes = b"/healthz", headers: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


CASES = [
    Case(name="as it should be", sent=get(headers=b"Connection: close\r\n"), status=200),
    Case(name="101 headers", sent=get(headers=b"X-A: 1\r\n" * 101), status=431, code="protocol.message_too_large"),
    Case(
        name="a header of 20 KB",
        sent=get(headers=b"X-A: " + b"a" * 20_000 + b"\r\n"),
        status=431,
        code="protocol.message_too_large",
    ),
    Case(name="a header of 70 KB", sent=get(headers=b"X-A: " + b"a" * 70_000 + b"\r\n"), status=431),
    Case(name="a long path", sent=get(b"/" + b"a" * 3_000), status=414, code="protocol.message_too_large"),
    Case(name="a long query", sent=get(b"/?" + b"a" * 9_000), status=414, code="protocol.message_too_large"),
    Case(name="a method of its own", sent=b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", status=400),
    Case(name="TRACE", sent=b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", status=405, code="protocol.unsupported_type"),
    Case(name="CONNECT", sent=b"CONNECT a.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", status=400),
    Case(name="NUL in the target", sent=get(b"/health\x00z"), status=400),
    Case(name="NUL in the path", sent=get(b"/health%00z"), status=400, code="protocol.invalid_message"),
    Case(name="NUL in the query", sent=get(b"/healthz?a=%00"), status=400, code="protocol.invalid_message"),
    Case(name="a line end in the path", sent=get(b"/healthz%0d%0aX-A:1"), status=400, code="protocol.invalid_message"),
    Case(name="NUL in a header", sent=get(headers=b"X-A: a\x00b\r\n"), status=400),
    Case(name="a control character in a header", sent=get(headers=b"X-A: a\x01b\r\n"), status=400),
    Case(name="a name with a space", sent=get(headers=b"X A: a\r\n"), status=400),
    Case(name="a space before the colon", sent=get(headers=b"Content-Length : 5\r\n"), status=400),
    Case(name="a folded header", sent=get(headers=b"X-A: a\r\n b\r\n"), status=400),
    Case(name="two hosts", sent=get(headers=b"Host: evil.example\r\n"), status=400, code="protocol.invalid_message"),
    Case(name="no host", sent=b"GET /admin/login/ HTTP/1.1\r\n\r\n", status=400),
    Case(name="another host", sent=b"GET /admin/login/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", status=400),
    Case(name="no host for the probe", sent=b"GET /healthz HTTP/1.1\r\n\r\n", status=400),
    Case(name="no host in HTTP/1.0", sent=b"GET /healthz HTTP/1.0\r\n\r\n", status=200),
    Case(
        name="an upgrade in absolute form",
        sent=UPGRADE.replace(b"/ws/", b"http://evil.example/ws/") + KEY + b"\r\n",
        status=400,
    ),
    Case(name="absolute form", sent=get(b"http://evil.example/healthz"), status=400),
    Case(name="asterisk form", sent=b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", status=404),
    Case(name="no HTTP", sent=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, status=400),
    Case(name="HTTP/2 by itself", sent=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=400),
    Case(name="another version", sent=b"GET /healthz HTTP/3.7\r\n" + HOST + b"\r\n", status=400),
    Case(name="lengths that differ", sent=POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", status=400),
    Case(name="a length below 0", sent=POST + b"Content-Length: -1\r\n\r\n", status=400),
    Case(name="a length with a sign", sent=POST + b"Content-Length: +2\r\n\r\n{}", status=400),
    Case(name="a length in hex", sent=POST + b"Content-Length: 0x2\r\n\r\n{}", status=400),
    Case(name="lengths in one line", sent=POST + b"Content-Length: 2, 2\r\n\r\n{}", status=400),
    Case(
        name="length and chunks",
        sent=POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        status=400,
    ),
    Case(
        name="chunks and length",
        sent=POST + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + SMUGGLED,
        status=400,
    ),
    Case(
        name="an encoding that is none",
        sent=POST + b"Content-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n" + SMUGGLED,
        status=400,
    ),
    Case(
        name="chunked not last",
        sent=POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        status=400,
    ),
    Case(
        name="a chunk of no size", sent=POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n", status=400
    ),
    Case(
        name="a chunk larger than any",
        sent=POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        status=400,
    ),
    Case(
        name="a chunk without its end",
        sent=POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n",
        status=400,
    ),
    Case(name="a compressed body", sent=POST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", status=415),
    Case(name="an upgrade without a key", sent=UPGRADE + b"\r\n", status=400),
    Case(name="an upgrade with a rubbish key", sent=UPGRADE + b"Sec-WebSocket-Key: rubbish!\r\n\r\n", status=400),
    Case(name="an upgrade with a short key", sent=UPGRADE + b"Sec-WebSocket-Key: c2hvcnQ=\r\n\r\n", status=400),
    Case(name="an upgrade with two keys", sent=UPGRADE + KEY + KEY + b"\r\n", status=400),
    Case(
        name="an upgrade of another version",
        sent=UPGRADE.replace(b"Version: 13", b"Version: 8") + KEY + b"\r\n",
        status=400,
    ),
    Case(name="an upgrade with two hosts", sent=UPGRADE + KEY + b"Host: evil.example\r\n\r\n", status=400),
    Case(name="an upgrade with NUL", sent=UPGRADE + KEY + b"X-A: a\x00\r\n\r\n", status=400),
    Case(name="an upgrade elsewhere", sent=UPGRADE.replace(b"/ws/", b"/nowhere/") + KEY + b"\r\n", status=404),
    Case(name="an upgrade of POST", sent=UPGRADE.replace(b"GET", b"POST") + KEY + b"\r\n", status=405),
]


def open_raw(product: Product) -> socket.socket:
    address = urlsplit(product.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def read_answers(connection: socket.socket, *, until_quiet_seconds: float = 0.4) -> bytes:
    """All that comes until the peer closes; of one that keeps the connection, until no more comes."""
    received = b""
    try:
        while True:
            # Of an answer nothing can be said but that it is not there: here silence is the condition.
            ready, _, _ = select.select([connection], [], [], 20 if not received else until_quiet_seconds)
            chunk = connection.recv(65536) if ready else b""
            if not chunk:
                return received
            received += chunk
    except ConnectionResetError:
        return received


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_each_is_answered_once_and_by_its_status(product: Product, case: Case) -> None:
    with open_raw(product) as connection:
        connection.sendall(case.sent)
        received = read_answers(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert (int(head.split(b" ", 2)[1]) if head else CUT) == case.status, received[:500]
    assert received.count(b"HTTP/1.1 ") == 1, received
    assert b'"status":"ok"' not in received or case.status == 200
    assert b"Traceback" not in received
    if case.code is not None:
        assert json.loads(body)["code"] == case.code
    assert product.get("healthz")[0] == 200


def trickle(connection: socket.socket, piece: bytes, *, seconds: float) -> None:
    """Send a piece again and again until the peer closes, which it must within so many seconds."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        ready, _, _ = select.select([connection], [], [], TRICKLE_SECONDS)
        try:
            if ready and not connection.recv(65536):
                return
            connection.sendall(piece)
        except OSError:
            return
    raise AssertionError(f"it was still read after {seconds:g} s")


HEADS = (
    (b"GET /healthz HTTP/1.1\r\n" + HOST, b"X-A: a\r\n"),
    (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: ", b"a"),
    (b"GET /", b"a"),
    (UPGRADE, b"X-A: a\r\n"),
    (b"", b"\r\n"),
    (get() + b"GET /healthz HTTP/1.1\r\n", b"X-A: a\r\n"),
)
"""How a head begins that never ends, and how it goes on."""


def test_what_trickles_in_is_cut_off_and_holds_nobody_up(product: Product, keys: Keys) -> None:
    """All of it at once: what it takes is waiting."""
    head = b"Authorization: Bearer " + keys.agent.encode() + b"\r\n"
    bodies = (
        (POST + head + b"Content-Length: 100000\r\n\r\n{", b" "),
        (POST + head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", b"1\r\n \r\n"),
    )
    waits = [(*case, HEAD_SECONDS) for case in HEADS] + [(*case, BODY_SECONDS) for case in bodies]

    def send(begun: bytes, piece: bytes, seconds: float) -> None:
        with open_raw(product) as connection:
            connection.sendall(begun)
            trickle(connection, piece, seconds=seconds + SLACK_SECONDS)

    with ThreadPoolExecutor(len(waits)) as pool:
        sent = [pool.submit(send, *case) for case in waits]
        assert product.get("healthz")[0] == 200
        for one in sent:
            one.result()
    assert product.get("healthz")[0] == 200
