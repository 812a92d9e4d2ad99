"""What the operating system says of a port on this machine. Who leases it is the database's to say.

Two ways to ask. *Binding* is the one that proves that a port can be had, and may for a moment be in the way of whoever
binds it then: it is for ports that nobody holds. *Looking* into the kernel's table of sockets disturbs nobody.
"""

from __future__ import annotations

import enum
import errno
import ipaddress
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ADDRESSES: Final = (
    (socket.AF_INET, "0.0.0.0"),  # noqa: S104  # bound for microseconds, and never listened on
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET6, "::"),
    (socket.AF_INET6, "::1"),
)
"""A holder of the wildcard keeps others from every address; on some systems one of loopback does not show there."""
LOOKS: Final = 3
PAUSE_SECONDS: Final = 0.01
"""Between two looks: another process of ours may just be trying the same port."""
_PROC: Final = Path("/proc/net")
_LISTENING: Final = "0A"
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


class Finding(enum.Enum):
    FREE = enum.auto()
    LINGERING = enum.auto()
    """Nobody listens, but connections of before are not forgotten (TIME_WAIT): not everybody could bind it now."""
    HELD = enum.auto()
    FORBIDDEN = enum.auto()


@dataclass(frozen=True, slots=True)
class Probe:
    finding: Finding
    found: str = ""
    """What keeps it, in words."""


def probe_port(port: int) -> Probe:
    """Try to bind the port, TCP and UDP, IPv4 and IPv6, on all addresses and on loopback.

    Without ``SO_REUSEADDR``, so that what is called free can be bound by whoever asks, however it asks. UDP too: a
    lease is of the number, and its holder decides what it speaks.

    Raises:
        OSError: this process cannot open a socket.
    """
    for _ in range(LOOKS - 1):
        probe = _probe_once(port)
        if probe.finding is not Finding.HELD:
            return probe
        time.sleep(PAUSE_SECONDS)
    return _probe_once(port)


def list_ports_in_use() -> frozenset[int] | None:
    """The ports of this machine that something listens on (TCP) or has bound (UDP); ``None``: that cannot be seen."""
    try:
        return frozenset(port for _, _, port in _iterate_sockets())
    except OSError:
        return None


def _probe_once(port: int) -> Probe:
    is_lingering = False
    for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        for family, address in ADDRESSES:
            code = _try_to_bind(family, kind, address, port, is_shared=False)
            if code in _FORBIDDEN:
                return Probe(Finding.FORBIDDEN, f"{name} {address}: the server may not bind it")
            if code != errno.EADDRINUSE:
                continue
            if kind == socket.SOCK_STREAM and _try_to_bind(family, kind, address, port, is_shared=True) is None:
                is_lingering = True
                continue
            return Probe(Finding.HELD, _describe_holder(port) or f"{name} {address}: in use")
    return Probe(Finding.LINGERING if is_lingering else Finding.FREE)


def _try_to_bind(family: int, kind: int, address: str, port: int, *, is_shared: bool) -> int | None:
    """``None``, or the error's number. An address that this machine lacks can be in nobody's way."""
    try:
        opened = socket.socket(family, kind)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
            return None
        raise
    with opened:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if is_shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((address, port))
        except OSError as error:
            return None if error.errno == errno.EADDRNOTAVAIL else error.errno
    return None


def _describe_holder(port: int) -> str:
    try:
        return "; ".join(
            sorted({f"{name} on {address}" for name, address, found in _iterate_sockets() if found == port})
        )
    except OSError:
        return ""


def _iterate_sockets() -> Iterator[tuple[str, str, int]]:
    """Kind, address and port of what listens or is bound, by the kernel's own table (Linux).

    Raises:
        OSError: there is no such table here.
    """
    for file, name in (("tcp", "TCP"), ("tcp6", "TCP"), ("udp", "UDP"), ("udp6", "UDP")):
        path = _PROC / file
        if file.endswith("6") and not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if name == "TCP" and state != _LISTENING:
                continue
            address, _, port = local.partition(":")
            yield name, _read_address(address), int(port, 16)


def _read_address(text: str) -> str:
    """From the kernel's hexadecimal, which has each 32 bits in the machine's order."""
    raw = bytes.fromhex(text)
    words = [int.from_bytes(raw[start : start + 4]) for start in range(0, len(raw), 4)]
    return str(ipaddress.ip_address(b"".join(socket.htonl(word).to_bytes(4) for word in words)))
