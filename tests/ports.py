"""Ports for tests: free ones of this machine, and things that hold them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

FIRST = 12_000
SIZE = 60
"""Of the range of one process of the test run; others have others."""


def choose_range() -> tuple[int, int]:
    """A range that no other process of this run takes from, outside of those that systems take from by themselves.

    The port behind it is for what outlasts a test.
    """
    first = FIRST + (os.getpid() % 100) * SIZE
    return first, first + SIZE - 2


def choose_product_range() -> str:
    """``MCP_PORT_RANGES`` of a product that this process starts."""
    first = 21_000 + (os.getpid() % 50) * 200
    return f"{first}-{first + 199}"


def set_ports(settings: Any, **values: object) -> None:
    """Change the server's own settings for one test."""
    settings.MCP = msgspec.structs.replace(settings.MCP, **values)


@contextmanager
def hold_port(
    port: int, *, host: str = "127.0.0.1", kind: socket.SocketKind = socket.SOCK_STREAM
) -> Iterator[socket.socket]:
    """Something else that has the port: a server that listens, or a bound UDP socket."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind) as held:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((host, port))
        if kind == socket.SOCK_STREAM:
            held.listen()
        yield held
