"""Addresses, networks, and whom rules of them let pass."""

from __future__ import annotations

import ipaddress
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.addresses import parse_address
from security.domain.addresses import (
    AddressRule,
    AddressRules,
    NetworkInvalid,
    Pass,
    RuleEffect,
    is_in_network,
    judge_address,
    parse_network,
)

ME, OTHER, KEY = uuid.UUID(int=1), uuid.UUID(int=2), uuid.UUID(int=3)


def rule(effect: str, network: str) -> AddressRule:
    return AddressRule(id=1, effect=RuleEffect(effect), network=parse_network(network))


RULES = st.lists(
    st.builds(
        rule, st.sampled_from(["allow", "deny"]), st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "::/0"])
    ),
    max_size=4,
)
ADDRESSES = st.sampled_from([None, "10.1.2.3", "10.2.0.1", "192.0.2.7", "2001:db8::1", "::ffff:10.1.2.3"]).map(
    parse_address
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:0207", "192.0.2.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("", None),
        (None, None),
        ("unix:/run/x.sock", None),
        ("192.0.2.07", None),
        ("192.0.2.7:80", None),
        (" 192.0.2.7", None),
    ],
)
def test_addresses_are_read_in_one_form(text: str | None, expected: str | None) -> None:
    assert parse_address(text) == (None if expected is None else ipaddress.ip_address(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_networks_are_read_in_one_form(text: str, expected: str) -> None:
    assert str(parse_network(text)) == expected


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10/8", "10.0.0.0/33", "everywhere", "10.0.0.0/8\n", "1" * 50])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(NetworkInvalid):
        parse_network(text)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_being_in_a_network_is_a_matter_of_bits(
    base: ipaddress.IPv4Address, prefix: int, address: ipaddress.IPv4Address
) -> None:
    network = parse_network(str(ipaddress.ip_network((int(base), prefix), strict=False)))
    shift = 32 - prefix
    expected = int(base) >> shift == int(address) >> shift
    assert is_in_network(address=address, network=network) is expected
    mapped = parse_address(f"::ffff:{address}")
    assert mapped is not None
    assert is_in_network(address=mapped, network=network) is expected


@pytest.mark.parametrize(
    ("rules", "address", "outcome"),
    [
        ([], "192.0.2.7", Pass.PASSED),
        ([], None, Pass.PASSED),
        ([rule("deny", "192.0.2.0/24")], "192.0.2.7", Pass.DENIED),
        ([rule("deny", "192.0.2.0/24")], "::ffff:192.0.2.7", Pass.DENIED),
        ([rule("deny", "192.0.2.0/24")], "192.0.20.7", Pass.PASSED),
        ([rule("allow", "192.0.2.0/24"), rule("deny", "192.0.2.7")], "192.0.2.7", Pass.DENIED),
        ([rule("deny", "192.0.2.7"), rule("allow", "192.0.2.0/24")], "192.0.2.8", Pass.PASSED),
        ([rule("allow", "192.0.2.0/24")], "198.51.100.1", Pass.NOT_LISTED),
        ([rule("allow", "192.0.2.0/24"), rule("allow", "10.0.0.0/8")], "10.1.1.1", Pass.PASSED),
        ([rule("allow", "0.0.0.0/0")], "2001:db8::1", Pass.NOT_LISTED),
        ([rule("allow", "0.0.0.0/0"), rule("allow", "::/0")], None, Pass.NOT_LISTED),
        ([rule("deny", "0.0.0.0/0"), rule("deny", "::/0")], None, Pass.PASSED),
    ],
)
def test_one_scope(rules: list[AddressRule], address: str | None, outcome: Pass) -> None:
    assert judge_address(address=parse_address(address), rules=rules).outcome is outcome


@given(RULES, RULES, ADDRESSES, st.randoms(use_true_random=False))
def test_more_denials_and_another_order_let_nobody_more_in(
    rules: list[AddressRule], more: list[AddressRule], address: None, random: object
) -> None:
    denials = [each for each in more if each.effect is RuleEffect.DENY]
    shuffled = [*rules, *denials]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis types it as any Random
    before = judge_address(address=address, rules=rules)
    after = judge_address(address=address, rules=shuffled)
    assert after.is_passed <= before.is_passed


@given(RULES, RULES, RULES, ADDRESSES)
def test_every_scope_must_pass(
    everyone: list[AddressRule], mine: list[AddressRule], keys: list[AddressRule], address: None
) -> None:
    rules = AddressRules(everyone=tuple(everyone), accounts={ME: tuple(mine)}, api_keys={KEY: tuple(keys)})
    passes = [judge_address(address=address, rules=scope).is_passed for scope in (everyone, mine, keys)]
    assert rules.judge_stranger(address).is_passed == passes[0]
    assert rules.judge(address, account_id=OTHER).is_passed == passes[0]
    assert rules.judge(address, account_id=ME).is_passed == all(passes[:2])
    assert rules.judge(address, account_id=ME, api_key_id=KEY).is_passed == all(passes)
