"""Connections that lead only where they may: httpcore's network backend, over a port to names and sockets.

A name is resolved here, all of its addresses are looked at, and those same addresses are connected to: between check
and connection nothing is asked again. TLS and HTTP above it still see the name. One deadline bounds it all: looking up,
connecting, the handshake, each byte sent and received.

What is asked and what becomes of the answer is ``tools.builtin.http_exchange``.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain, zip_longest
from typing import Any, Final, NoReturn, Protocol

import httpcore2

from tools.authoring import ToolError
from tools.builtin.addresses import Address, Network, may_connect, may_connect_to_all

MAX_ADDRESSES_TRIED = 4
MAX_LOOKUPS = 8
"""Under way at once in a process. A lookup cannot be ended: one that took too long goes on by itself."""

_LOOKUP_THREAD: Final = "http-lookup"


class DestinationRefused(ToolError):
    """The tool does not connect to there; nothing was sent."""


class ExchangeTimedOut(ToolError):
    """The whole exchange did not end within its time."""


class ExchangeFailed(ToolError):
    """There is no connection, or no HTTP on it."""


class Deadline:
    """When all of an exchange must be over."""

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._started_at = clock()

    def get_elapsed_seconds(self) -> float:
        return self._clock() - self._started_at

    def get_remaining_seconds(self) -> float:
        """Above 0.

        Raises:
            ExchangeTimedOut: nothing is left.
        """
        remaining = self._seconds - self.get_elapsed_seconds()
        if remaining <= 0:
            self.strike()
        return remaining

    def strike(self) -> NoReturn:
        raise ExchangeTimedOut(f"The exchange did not end within {self._seconds:g} s, redirects included.")


class Dialer(Protocol):
    """The way to names and sockets. It decides nothing."""

    def look_up(self, *, host: str, timeout_seconds: float) -> Sequence[Address]:
        """Every address of the name; none: it has no address, or cannot be looked up.

        Raises:
            TimeoutError: it took longer.
        """
        ...

    def dial(self, *, address: Address, port: int, timeout_seconds: float) -> socket.socket:
        """A connected TCP socket.

        Raises:
            OSError: there is none.
        """
        ...


class SystemDialer:
    """The machine's resolver and network."""

    def look_up(self, *, host: str, timeout_seconds: float) -> Sequence[Address]:
        """See ``Dialer``. In a thread, since the C library's lookup knows neither a limit nor an interruption."""
        if sum(thread.name == _LOOKUP_THREAD for thread in threading.enumerate()) >= MAX_LOOKUPS:
            raise ExchangeFailed("Too many names are being looked up; try again in a minute.")
        answers: queue.SimpleQueue[Sequence[Address]] = queue.SimpleQueue()
        threading.Thread(name=_LOOKUP_THREAD, target=lambda: answers.put(_look_up_addresses(host)), daemon=True).start()
        try:
            return answers.get(timeout=timeout_seconds)
        except queue.Empty:
            raise TimeoutError from None

    def dial(self, *, address: Address, port: int, timeout_seconds: float) -> socket.socket:
        """See ``Dialer``."""
        family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_seconds)
            connection.connect((str(address), port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection


class GuardedBackend(httpcore2.NetworkBackend):
    """Connects to what may be connected to, and to nothing else."""

    def __init__(self, *, dialer: Dialer, allowed: Sequence[Network], deadline: Deadline) -> None:
        self._dialer = dialer
        self._allowed = allowed
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002  # the deadline counts
        local_address: str | None = None,  # noqa: ARG002  # httpcore's signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  # likewise
    ) -> httpcore2.NetworkStream:
        """A connection to one of the host's addresses, all of which were looked at.

        Raises:
            DestinationRefused: the host is not to be connected to.
            ExchangeTimedOut: the deadline passed.
            ExchangeFailed: no address takes a connection.
        """
        addresses = choose_addresses(self._find_addresses(host))
        for position, address in enumerate(addresses):
            # What is left is shared, so that an address which swallows packets leaves time for the next one.
            share = self._deadline.get_remaining_seconds() / (len(addresses) - position)
            try:
                connection = self._dialer.dial(address=address, port=port, timeout_seconds=share)
            except OSError:
                continue
            return SocketStream(connection, deadline=self._deadline)
        self._deadline.get_remaining_seconds()
        raise ExchangeFailed(f"There is no connection to {host!r} at port {port}.")

    def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002  # httpcore's signature
        timeout: float | None = None,  # noqa: ARG002  # likewise
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  # likewise
    ) -> NoReturn:
        raise DestinationRefused("This tool does not connect to local sockets.")

    def _find_addresses(self, host: str) -> Sequence[Address]:
        try:
            address = ip_address(host)
        except ValueError:
            return self._look_up(host)
        if not may_connect(address=address, allowed=self._allowed):
            raise DestinationRefused(
                f"{host} is not a public address; only those are reached, and networks that the operator allows by "
                "MCP_HTTP_ALLOWED_NETWORKS."
            )
        return (address,)

    def _look_up(self, host: str) -> Sequence[Address]:
        try:
            addresses = self._dialer.look_up(host=host, timeout_seconds=self._deadline.get_remaining_seconds())
        except TimeoutError:
            self._deadline.strike()
        # One sentence for both: whether an internal name exists is not for callers.
        if not addresses or not may_connect_to_all(addresses=addresses, allowed=self._allowed):
            raise DestinationRefused(
                f"{host!r} has no address, or one that is not public; only public ones are reached, and networks that "
                "the operator allows by MCP_HTTP_ALLOWED_NETWORKS."
            )
        return addresses


class SocketStream(httpcore2.NetworkStream):
    """A connected socket, whose every operation ends by the deadline."""

    def __init__(self, connection: socket.socket, *, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002  # the deadline counts
        try:
            self._connection.settimeout(self._deadline.get_remaining_seconds())
            return self._connection.recv(max_bytes)
        except TimeoutError:
            self._deadline.strike()
        except OSError as error:
            raise httpcore2.ReadError from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002  # the deadline counts
        unsent = memoryview(buffer)
        try:
            while unsent:
                self._connection.settimeout(self._deadline.get_remaining_seconds())
                unsent = unsent[self._connection.send(unsent) :]
        except TimeoutError:
            self._deadline.strike()
        except OSError as error:
            raise httpcore2.WriteError from error

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002  # the deadline counts
    ) -> SocketStream:
        try:
            self._connection.settimeout(self._deadline.get_remaining_seconds())
            connection = ssl_context.wrap_socket(self._connection, server_hostname=server_hostname)
        except TimeoutError:
            self.close()
            self._deadline.strike()
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise ExchangeFailed(f"The certificate of {server_hostname!r} is not trusted by this server.") from error
        except (OSError, ValueError) as error:
            self.close()
            raise ExchangeFailed(f"There is no TLS connection to {server_hostname!r}.") from error
        return SocketStream(connection, deadline=self._deadline)

    def close(self) -> None:
        self._connection.close()


def choose_addresses(addresses: Sequence[Address]) -> Sequence[Address]:
    """Those to try, of the two versions by turns: where one leads nowhere, the other has its try (RFC 8305)."""
    versions = dict.fromkeys(address.version for address in addresses)
    lines = [[address for address in addresses if address.version == version] for version in versions]
    turns = chain.from_iterable(zip_longest(*lines))
    return [address for address in turns if address is not None][:MAX_ADDRESSES_TRIED]


def _look_up_addresses(host: str) -> Sequence[Address]:
    try:
        found = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
