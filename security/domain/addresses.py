"""Networks, read in one place, and which rules of addresses let one pass; addresses are ``protocol.domain.addresses``'.

An address is an object of ``ipaddress``, never text, from here on: a network compared as the beginning of a text would
let 10.0.0.0/8 have 100.1.2.3. What belongs here is pure; where rules come from is ``models``', and where addresses do,
the edges'.
"""

from __future__ import annotations

import enum
import ipaddress
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from protocol.domain.addresses import Address

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NETWORK_LENGTH: Final = 49
"""Of a network's text: an IPv6 network with its prefix, written out in full, and IPv4 inside of it."""
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


class NetworkInvalid(ValueError):
    """The text is no network; the message says why."""


def parse_network(text: str) -> Network:
    """The network that the text writes; an address by itself is the network of this one.

    Raises:
        NetworkInvalid: it writes none, or has bits set beyond its prefix.
    """
    if len(text) > MAX_NETWORK_LENGTH:
        raise NetworkInvalid(f"A network has at most {MAX_NETWORK_LENGTH} characters.")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise NetworkInvalid(f"{text!r} is no network such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32.") from error
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def is_network(text: str) -> bool:
    """Whether the text writes a network."""
    try:
        parse_network(text)
    except NetworkInvalid:
        return False
    return True


def is_in_network(*, address: Address, network: Network) -> bool:
    """Whether the address is one of the network's; one of the other version never is."""
    return address.version == network.version and address in network


def is_in_any(*, address: Address, networks: Iterable[Network]) -> bool:
    return any(is_in_network(address=address, network=network) for network in networks)


class RuleEffect(enum.StrEnum):
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRule:
    """Addresses of a network may come, or may not."""

    id: int
    effect: RuleEffect
    network: Network


class Pass(enum.StrEnum):
    """What became of an address in one scope."""

    PASSED = "passed"
    DENIED = "denied"
    """By a rule that denies."""
    NOT_LISTED = "not_listed"
    """There are rules that allow, and none has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressVerdict:
    outcome: Pass
    rule: AddressRule | None = None
    """The rule that decided, where one did."""

    @property
    def is_passed(self) -> bool:
        return self.outcome is Pass.PASSED


_PASSED: Final = AddressVerdict(outcome=Pass.PASSED)


def judge_address(*, address: Address | None, rules: Sequence[AddressRule]) -> AddressVerdict:
    """Whether the address passes the rules of one scope: deny beats allow, and where rules allow, one has to.

    A peer without an address, on a Unix socket, is in no network: no rule denies it, and none allows it.
    """
    allowing: AddressRule | None = None
    for rule in rules:
        if address is None or not is_in_network(address=address, network=rule.network):
            continue
        if rule.effect is RuleEffect.DENY:
            return AddressVerdict(outcome=Pass.DENIED, rule=rule)
        allowing = allowing or rule
    if allowing is None and any(rule.effect is RuleEffect.ALLOW for rule in rules):
        return AddressVerdict(outcome=Pass.NOT_LISTED)
    return AddressVerdict(outcome=Pass.PASSED, rule=allowing) if allowing else _PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """All rules that count, by their scope: everyone, one account, one API key."""

    everyone: tuple[AddressRule, ...] = ()
    accounts: dict[uuid.UUID, tuple[AddressRule, ...]] = field(default_factory=dict)
    api_keys: dict[uuid.UUID, tuple[AddressRule, ...]] = field(default_factory=dict)

    def judge_stranger(self, address: Address | None) -> AddressVerdict:
        """Whether anybody at all may come from there."""
        return judge_address(address=address, rules=self.everyone)

    def judge(
        self, address: Address | None, *, account_id: uuid.UUID, api_key_id: uuid.UUID | None = None
    ) -> AddressVerdict:
        """Whether this account, with this key where it showed one, may come from there: every scope must pass."""
        scopes = (
            self.everyone,
            self.accounts.get(account_id, ()),
            () if api_key_id is None else self.api_keys.get(api_key_id, ()),
        )
        verdict = _PASSED
        for rules in scopes:
            verdict = judge_address(address=address, rules=rules)
            if not verdict.is_passed:
                return verdict
        return verdict
