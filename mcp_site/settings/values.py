"""What single values of the environment may be: addresses, networks, URLs. Rules over several are elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import TypeAlias
from urllib.parse import urlsplit

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether an IP address or ``localhost`` is reached from this machine only."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def is_service_url(url: str, *, schemes: Collection[str]) -> bool:
    """Whether it is a URL of one of these schemes with a host or a path."""
    try:
        parts = urlsplit(url)
        return parts.scheme in schemes and bool(parts.hostname or parts.path.strip("/")) and parts.port != 0
    except ValueError:
        return False


def parse_networks(texts: Iterable[str], *, name: str) -> tuple[Network, ...]:
    """The networks that the variable ``name`` lists.

    Raises:
        ValueError: one is none, or has bits beyond its length.
    """
    networks: list[Network] = []
    for text in texts:
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError:
            raise ValueError(f"{name}: {text!r} is not a network such as 10.0.0.0/8") from None
    return tuple(networks)
