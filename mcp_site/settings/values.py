"""What single values of the environment may be: addresses, networks, URLs. Rules over several are elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from security.domain.master_keys import MasterKeyInvalid, parse_master_keys

POSTGRESQL_SCHEMES: Final = frozenset({"postgres", "postgresql"})
REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
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


def check_origins(texts: Iterable[str], *, name: str) -> None:
    """Hold the variable ``name`` to origins as browsers write them (RFC 6454, section 6.2).

    Raises:
        ValueError: one is none.
    """
    for text in texts:
        parts = urlsplit(text)
        if parts.scheme not in {"http", "https"} or not parts.hostname or text != f"{parts.scheme}://{parts.netloc}":
            raise ValueError(f"{name}: {text!r} is not an origin such as https://app.example")
        if "@" in parts.netloc or text != text.lower():
            raise ValueError(f"{name}: {text!r} is not as browsers write it, in small letters and without a name")


def check_master_key(text: str, *, sources: Sequence[str]) -> None:
    """Refuse a text that is no master key, and more than one of the variables that it comes from.

    Raises:
        ValueError: see above; the text is not repeated.
    """
    if len(sources) > 1:
        raise ValueError(f"{sources[1]}: {sources[0]} is set too; give the master key in one way")
    try:
        if text:
            parse_master_keys(text)
    except MasterKeyInvalid:
        raise ValueError("MCP_MASTER_KEY: expected 32 bytes as base64url") from None
