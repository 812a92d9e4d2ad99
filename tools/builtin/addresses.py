"""Which addresses a tool may connect to: public unicast ones, and what the operator allows. All else is refused.

The base is IANA's special-purpose registries as ``ipaddress`` has them; the tables add what these call global and is
none the less not a host of the Internet, or is one only for machines of a cloud. An address that carries another, as
6to4 does, may be connected to only where that one may be too. Pure: who resolves names and connects is
``tools.builtin.dialing``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_REFUSED: Final[tuple[Network, ...]] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, at an address that is public elsewhere
        "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # protocol assignments, with Teredo, ORCHID and benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
"""All that is given out of IPv6. Loopback, unique-, link- and site-local addresses, multicast and NAT64 are beyond."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = IPv6Network("::/96")
_ISATAP_MARKS: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


def may_connect(*, address: Address, allowed: Sequence[Network]) -> bool:
    """Whether a tool may connect to the address; ``allowed`` are the networks that need not be public."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    if not is_public(address) and not any(address in network for network in allowed):
        return False
    return all(may_connect(address=carried, allowed=allowed) for carried in list_carried(address))


def may_connect_to_all(*, addresses: Iterable[Address], allowed: Sequence[Network]) -> bool:
    """Whether a tool may connect to a name with these addresses: one that is refused refuses the name."""
    return all(may_connect(address=address, allowed=allowed) for address in addresses)


def is_public(address: Address) -> bool:
    """Whether it is a host's address on the Internet, as far as an address tells."""
    if isinstance(address, IPv6Address) and (address.scope_id is not None or address not in _GLOBAL_UNICAST):
        return False
    return address.is_global and not any(address in network for network in _REFUSED)


def list_carried(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 one stands for, or is relayed to (RFC 4291, 3056, 4380, 6052, 5214)."""
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    low = IPv4Address(number & 0xFFFF_FFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    # Of IPv4-compatible addresses two are none: the unspecified one and loopback.
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and number > 1):
        yield low
    if number >> 32 & 0xFFFF_FFFF in _ISATAP_MARKS:
        yield low
