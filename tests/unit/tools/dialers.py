"""A way to names and sockets that tests see into: names have the addresses that a test says."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from tools.builtin.addresses import Address
from tools.builtin.dialing import SystemDialer


class WatchedDialer:
    """Implements ``tools.builtin.dialing.Dialer``. Only loopback is really dialled."""

    def __init__(
        self, names: Mapping[str, Iterable[Sequence[str]]] | None = None, *, public_port: int | None = None
    ) -> None:
        """``names`` are each name's answers, the last of which stays; what is public is served by ``public_port``."""
        self.looked_up: list[str] = []
        self.dialled: list[str] = []
        self._names = {name: list(answers) for name, answers in (names or {}).items()}
        self._public_port = public_port

    def look_up(self, *, host: str, timeout_seconds: float) -> Sequence[Address]:
        assert timeout_seconds > 0
        self.looked_up.append(host)
        answers = self._names.get(host, [()])
        return tuple(map(ip_address, answers.pop(0) if len(answers) > 1 else answers[0]))

    def dial(self, *, address: Address, port: int, timeout_seconds: float) -> socket.socket:
        assert timeout_seconds > 0
        self.dialled.append(str(address))
        if not address.is_loopback:
            if self._public_port is None:
                raise ConnectionRefusedError
            address, port = ip_address("127.0.0.1"), self._public_port
        return SystemDialer().dial(address=address, port=port, timeout_seconds=timeout_seconds)


class SlowDialer(WatchedDialer):
    """Its names never answer in time."""

    def look_up(self, *, host: str, timeout_seconds: float) -> Sequence[Address]:
        assert host
        assert timeout_seconds > 0
        raise TimeoutError
