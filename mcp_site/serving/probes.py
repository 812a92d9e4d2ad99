"""How the supervisor sees that what it started works: one PING to the broker, one GET to the web processes."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import msgspec

from mcp_site.serving.plan import Address

ATTEMPT_SECONDS: Final = 3.0
MAX_ANSWER_BYTES: Final = 64 * 1024


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """What ``/readyz`` said."""

    is_ready: bool
    reason: str


async def can_reach_broker(socket: str) -> bool:
    """Whether the broker answers on its socket."""
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                writer.write(b"PING\r\n")
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


async def read_readiness(address: Address) -> Readiness:
    """Ask ``/readyz`` once."""
    try:
        async with asyncio.timeout(ATTEMPT_SECONDS):
            status, body = await _get(address, "/readyz")
    except (OSError, TimeoutError, ValueError):
        return Readiness(is_ready=False, reason="the web process does not answer")
    if status == 200:
        return Readiness(is_ready=True, reason="")
    return Readiness(is_ready=False, reason=_list_failures(body) or f"/readyz answers {status}")


async def _get(address: Address, path: str) -> tuple[int, bytes]:
    context = None
    if address.has_tls:
        # Its own server on its own socket: the certificate names other hosts than this address.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read(MAX_ANSWER_BYTES)
        while more := await reader.read(MAX_ANSWER_BYTES):
            answer = (answer + more)[:MAX_ANSWER_BYTES]
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.") else 0, body


class _Check(msgspec.Struct):
    status: str
    error: str = ""


class _Report(msgspec.Struct):
    checks: dict[str, _Check]


def _list_failures(body: bytes) -> str:
    try:
        report = msgspec.json.decode(body, type=_Report)
    except msgspec.DecodeError:
        return ""
    return ", ".join(f"{name}: {check.error}" for name, check in report.checks.items() if check.status != "ok")
