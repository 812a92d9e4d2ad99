"""A peer's IP address, read in one place: the same peer is the same address at every door, in every counter and record.

IPv4 written as IPv6 (``::ffff:10.1.2.3``, RFC 4291 section 2.5.5.2) is IPv4. The zone of a link-local address says on
which interface of ours, not who, and no database's type of addresses takes it.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str | None) -> Address | None:
    """The address that the text writes; ``None``: it writes none, as a peer on a Unix socket has none."""
    if not text:
        return None
    plain, percent, _zone = text.partition("%")
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return None if percent else address


def read_address(text: str | None) -> str | None:
    """The address in the one way in which it is written here; ``None``: there is none."""
    address = parse_address(text)
    return None if address is None else str(address)


def is_loopback(text: str | None) -> bool:
    """Whether it is this machine's own loopback."""
    address = parse_address(text)
    return address is not None and address.is_loopback
