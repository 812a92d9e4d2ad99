"""The policy: its grammar, its decision, and what must hold whatever the rules are."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.addresses import parse_address
from protocol.domain.messages import SecurityLevel
from protocol.ports import Resource
from security.domain.conditions import Circumstances, Holding, parse_conditions
from security.domain.policy import (
    MAX_PATTERN_LENGTH,
    Decision,
    Effect,
    GrantRule,
    PatternInvalid,
    Reason,
    decide,
    may_ever,
    parse_action_pattern,
    parse_resource_pattern,
    reaches_others,
)
from tests.factories import allow, deny

ME = uuid.UUID(int=1)
OTHER = uuid.UUID(int=2)
FILES_READ = Resource(kind="tool", name="files.read")
HERE = Circumstances(
    address=ipaddress.ip_address("192.0.2.7"),
    security_level=SecurityLevel.STANDARD,
    at=datetime(2026, 11, 26, 12, 0, tzinfo=UTC),
)

# Few letters, so that patterns and names meet often.
NAMES = st.from_regex(r"[ab.]{1,6}", fullmatch=True)
ACTIONS = st.sampled_from(["tools.view", "tools.execute", "tools", "toolsXview", "executions.view", "a"])
ACTION_PATTERNS = st.sampled_from(["*", "tools.*", "tools.view", "*.view", "t*s.*e*", "executions.view", "*a*"])
RESOURCES = st.builds(
    lambda kind, name, owner_id, labels, level: Resource(
        kind=kind, name=name, owner_id=owner_id, labels=labels, minimum_level=level
    ),
    st.sampled_from(["tool", "execution", "tools"]),
    NAMES,
    st.sampled_from([None, ME, OTHER]),
    st.frozensets(st.sampled_from(["production", "slow"])),
    st.sampled_from([SecurityLevel.LOW, SecurityLevel.LOW, SecurityLevel.CRITICAL]),
)
RESOURCE_PATTERNS = st.builds(
    lambda kind, name, suffix: f"{kind}:{name}{suffix}",
    st.sampled_from(["*", "tool", "execution", "t*", "*tool*"]),
    st.from_regex(r"[ab.*]{1,5}", fullmatch=True),
    st.sampled_from(["", "", "@own", "@label=production", "@label=slow@own"]),
)
CONDITIONS = st.sampled_from(
    [
        {},
        {},
        {"networks": ["10.0.0.0/8"]},
        {"networks": ["192.0.2.0/24"]},
        {"minimum_level": "high"},
        {"hours": {"from": "08:00", "to": "12:00"}},
        {"hours": {"from": "08:00", "to": "18:00"}, "minimum_level": "standard"},
        {"phase_of_the_moon": "full"},
        {"networks": "everywhere"},
    ]
).map(parse_conditions)
LEVELS = st.sampled_from(SecurityLevel)
RULES = st.builds(
    lambda effect, action, resource, conditions, level: GrantRule(
        effect=effect, action_pattern=action, resource_pattern=resource, conditions=conditions, minimum_level=level
    ),
    st.sampled_from(Effect),
    ACTION_PATTERNS,
    RESOURCE_PATTERNS,
    CONDITIONS,
    st.sampled_from([SecurityLevel.LOW, SecurityLevel.LOW, SecurityLevel.HIGH]),
)
CIRCUMSTANCES = st.builds(
    lambda address, level, minutes: Circumstances(
        address=address, security_level=level, at=HERE.at + timedelta(minutes=minutes)
    ),
    st.sampled_from([None, ipaddress.ip_address("10.1.2.3"), ipaddress.ip_address("192.0.2.7")]),
    LEVELS,
    st.integers(-1440, 1440),
)
RULE_LISTS = st.lists(RULES, max_size=6)
SCOPES = st.lists(ACTION_PATTERNS, max_size=3).map(tuple)


def ask(
    grants: list[GrantRule],
    action: str,
    resource: Resource,
    scopes: tuple[str, ...] = (),
    circumstances: Circumstances = HERE,
) -> Decision:
    return decide(
        grants=grants,
        principal_id=ME,
        action=action,
        resource=resource,
        scopes=scopes,
        circumstances=circumstances,
    )


def is_allowed(
    grants: list[GrantRule],
    action: str,
    resource: Resource,
    scopes: tuple[str, ...] = (),
    circumstances: Circumstances = HERE,
) -> bool:
    return ask(grants, action, resource, scopes, circumstances).is_allowed


@pytest.mark.parametrize(
    "text", ["*", "tools.*", "tools.execute", "*.view", "t*s.e*e", "a_b.c1", "a.b.c", "x" * MAX_PATTERN_LENGTH]
)
def test_an_action_pattern_is_taken(text: str) -> None:
    parse_action_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "tools.", ".tools", "tools..view", "Tools.view", "tools view", "tools.(a|b)", "tools.view\n", "[a-z]",
     "tools.?", "x" * (MAX_PATTERN_LENGTH + 1)],
)  # fmt: skip
def test_what_is_no_action_pattern_is_refused(text: str) -> None:
    with pytest.raises(PatternInvalid):
        parse_action_pattern(text)


@pytest.mark.parametrize(
    "text", ["*:*", "tool:*", "tool:files.*", "execution:*@own", "*:*@own", "context:a/b-c", "t*:A1"]
)
def test_a_resource_pattern_is_taken(text: str) -> None:
    parse_resource_pattern(text)


@pytest.mark.parametrize(
    "text",
    ["tool:x@label=", "tool:x@label=A", "tool:x@label=a*", "tool:x@label=a@label=a", "tool:x@Own", "tool:x@own@",
     "", "*", "tool", "tool:", ":x", "tool:x@", "tool:x@other", "tool:@own", "tool:x@own@own", "tool:x y", "Tool:x",
     "tool:x\n", "tool:" + "x" * MAX_PATTERN_LENGTH],
)  # fmt: skip
def test_what_is_no_resource_pattern_is_refused(text: str) -> None:
    with pytest.raises(PatternInvalid):
        parse_resource_pattern(text)


@pytest.mark.parametrize("make", [lambda: allow("Tools"), lambda: deny("tools.*", "tool")])
def test_a_rule_that_does_not_parse_cannot_be_made(make: Callable[[], GrantRule]) -> None:
    with pytest.raises(PatternInvalid):
        make()


@pytest.mark.parametrize(
    ("pattern", "action", "is_match"),
    [
        ("tools.execute", "tools.execute", True),
        ("tools.execute", "tools.executed", False),
        ("tools.execute", "xtools.execute", False),
        ("tools.execute", "tools.execute\n", False),
        ("tools.execute", "toolsXexecute", False),
        ("tools.*", "tools.view", True),
        ("tools.*", "tools", False),
        ("tools.*", "atools.view", False),
        ("*", "anything.at.all", True),
        ("*.view", "tools.view", True),
        ("*.view", "tools.viewer", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a**a", "aba", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "acb", False),
    ],
)
def test_action_patterns_are_anchored(pattern: str, action: str, is_match: bool) -> None:
    assert parse_action_pattern(pattern).matches(action) is is_match


@pytest.mark.parametrize(
    ("pattern", "resource", "is_match"),
    [
        ("tool:files.*", FILES_READ, True),
        ("tool:files.*", Resource(kind="tools", name="files.read"), False),
        ("tool:files.*", Resource(kind="tool", name="text.files.read"), False),
        ("tool:*", Resource(kind="tool", name="with spaces, @own and ünïcode\n"), True),
        ("*:files.read", FILES_READ, True),
        ("execution:*@own", Resource(kind="execution", name="1", owner_id=ME), True),
        ("execution:*@own", Resource(kind="execution", name="1", owner_id=OTHER), False),
        ("execution:*@own", Resource(kind="execution", name="1"), False),
        ("execution:*", Resource(kind="execution", name="1", owner_id=OTHER), True),
        ("tool:*@label=production", Resource(kind="tool", name="x", labels=frozenset({"production"})), True),
        ("tool:*@label=production", Resource(kind="tool", name="x", labels=frozenset({"production2"})), False),
        ("tool:*@label=production", Resource(kind="tool", name="production"), False),
        ("tool:*@label=a@label=b", Resource(kind="tool", name="x", labels=frozenset({"a"})), False),
        ("tool:*@label=a@label=b", Resource(kind="tool", name="x", labels=frozenset({"a", "b", "c"})), True),
        ("tool:*@own@label=a", Resource(kind="tool", name="x", labels=frozenset({"a"}), owner_id=OTHER), False),
        ("tool:*@label=a@own", Resource(kind="tool", name="x", labels=frozenset({"a"}), owner_id=ME), True),
    ],
)
def test_resource_patterns(pattern: str, resource: Resource, is_match: bool) -> None:
    assert parse_resource_pattern(pattern).matches(resource, principal_id=ME) is is_match


@pytest.mark.parametrize(
    ("grants", "scopes", "reason"),
    [
        ([], (), Reason.NOT_GRANTED),
        ([allow("tools.view", "tool:*")], (), Reason.NOT_GRANTED),
        ([allow("tools.execute", "tool:text.*")], (), Reason.NOT_GRANTED),
        ([allow("tools.*", "tool:*")], (), Reason.GRANTED),
        ([allow("*")], ("tools.execute",), Reason.GRANTED),
        ([allow("*")], ("tools.view",), Reason.OUT_OF_SCOPE),
        ([allow("*"), deny("tools.execute", "tool:files.*")], (), Reason.DENIED),
        ([deny("tools.execute", "tool:files.*"), allow("*")], ("tools.view",), Reason.DENIED),
        ([allow("*"), deny("tools.execute", "tool:text.*")], (), Reason.GRANTED),
    ],
)
def test_decisions(grants: list[GrantRule], scopes: tuple[str, ...], reason: Reason) -> None:
    decision = ask(grants, "tools.execute", FILES_READ, scopes)
    assert (decision.reason, decision.is_allowed) == (reason, reason is Reason.GRANTED)
    assert (decision.rule is None) == (reason is Reason.NOT_GRANTED)


@given(st.from_regex(r"[ab.*]{1,8}", fullmatch=True), NAMES)
def test_a_pattern_means_what_its_anchored_regular_expression_means(pattern: str, name: str) -> None:
    expected = re.fullmatch(".*".join(re.escape(piece) for piece in pattern.split("*")), name, re.DOTALL) is not None
    assert (
        parse_resource_pattern(f"tool:{pattern}").matches(Resource(kind="tool", name=name), principal_id=ME) is expected
    )


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES, st.randoms(use_true_random=False))
def test_the_order_of_grants_has_no_say(
    grants: list[GrantRule],
    action: str,
    resource: Resource,
    scopes: tuple[str, ...],
    circumstances: Circumstances,
    random: object,
) -> None:
    shuffled = list(grants)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis types it as any Random
    first = ask(grants, action, resource, scopes, circumstances)
    second = ask(shuffled, action, resource, scopes, circumstances)
    assert (first.is_allowed, first.reason, first.demanded_level) == (
        second.is_allowed,
        second.reason,
        second.demanded_level,
    )


@given(RULE_LISTS, RULES, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES)
def test_adding_a_deny_never_widens(
    grants: list[GrantRule],
    rule: GrantRule,
    action: str,
    resource: Resource,
    scopes: tuple[str, ...],
    circumstances: Circumstances,
) -> None:
    denying = replace(rule, effect=Effect.DENY)
    if is_allowed([*grants, denying], action, resource, scopes, circumstances):
        assert is_allowed(grants, action, resource, scopes, circumstances)


@given(RULE_LISTS, RULES, ACTIONS, RESOURCES, CIRCUMSTANCES)
def test_adding_an_allow_never_narrows(
    grants: list[GrantRule], rule: GrantRule, action: str, resource: Resource, circumstances: Circumstances
) -> None:
    if is_allowed(grants, action, resource, (), circumstances):
        assert is_allowed([*grants, replace(rule, effect=Effect.ALLOW)], action, resource, (), circumstances)


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES)
def test_scopes_only_narrow(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...], circumstances: Circumstances
) -> None:
    if is_allowed(grants, action, resource, scopes, circumstances):
        assert is_allowed(grants, action, resource, (), circumstances)
        assert is_allowed(grants, action, resource, (*scopes, "*"), circumstances)


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES)
def test_only_the_level_is_lacking_where_a_level_is_demanded(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...], circumstances: Circumstances
) -> None:
    decision = ask(grants, action, resource, scopes, circumstances)
    assert (decision.reason is Reason.LEVEL_TOO_LOW) == (decision.demanded_level is not None)
    if decision.demanded_level is not None:
        higher = replace(circumstances, security_level=decision.demanded_level)
        assert not decision.is_allowed
        assert decision.demanded_level.rank > circumstances.security_level.rank
        assert is_allowed(grants, action, resource, scopes, higher)


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES)
def test_an_allow_with_a_condition_that_is_not_known_to_hold_gives_nothing(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...], circumstances: Circumstances
) -> None:
    doubtful = [rule for rule in grants if rule.conditions.judge(circumstances) is not Holding.HOLDS]
    certain = [rule for rule in grants if rule not in doubtful]
    allows = [rule for rule in doubtful if rule.effect is Effect.ALLOW]
    assert is_allowed(grants, action, resource, scopes, circumstances) <= is_allowed(
        certain, action, resource, scopes, circumstances
    )
    assert not is_allowed(allows, action, resource, scopes, circumstances)


@given(RULE_LISTS, ACTIONS, RESOURCES, CIRCUMSTANCES, st.integers(0, 86_399))
def test_a_decision_holds_until_it_says(
    grants: list[GrantRule], action: str, resource: Resource, circumstances: Circumstances, seconds: int
) -> None:
    decision = ask(grants, action, resource, (), circumstances)
    later = circumstances.at + timedelta(seconds=seconds)
    if decision.ends_at is None or later < decision.ends_at:
        assert is_allowed(grants, action, resource, (), replace(circumstances, at=later)) == decision.is_allowed


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES)
def test_nothing_is_allowed_without_an_allow_that_names_it(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...]
) -> None:
    decision = ask(grants, action, resource, scopes)
    matching = [rule for rule in grants if rule.matches(principal_id=ME, action=action, resource=resource)]
    effects = {rule.effect for rule in matching if rule.applies(HERE)}
    assert decision.is_allowed <= (effects == {Effect.ALLOW})


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, CIRCUMSTANCES)
def test_the_first_gate_never_shuts_out_what_would_be_allowed(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...], circumstances: Circumstances
) -> None:
    decision = ask(grants, action, resource, scopes, circumstances)
    if decision.is_allowed or decision.demanded_level is not None:
        assert may_ever(grants=grants, action=action, scopes=scopes)
    if decision.is_allowed and resource.owner_id != ME:
        assert reaches_others(grants=grants, action=action, kind=resource.kind)


@pytest.mark.parametrize(
    ("grants", "scopes", "expected"),
    [
        ([], (), False),
        ([allow("tools.execute", "tool:files.read")], (), True),
        ([allow("tools.view")], (), False),
        ([allow("*")], ("tools.view",), False),
        ([allow("*"), deny("tools.execute", "tool:*")], (), True),
        ([allow("*"), deny("tools.execute", "*:*")], (), False),
        ([allow("*"), deny("tools.execute", "*:*@own")], (), True),
    ],
)
def test_the_first_gate(grants: list[GrantRule], scopes: tuple[str, ...], expected: bool) -> None:
    assert may_ever(grants=grants, action="tools.execute", scopes=scopes) is expected


HIGH, CRITICAL = SecurityLevel.HIGH, SecurityLevel.CRITICAL


@pytest.mark.parametrize(
    ("grants", "resource_level", "demanded"),
    [
        ([allow("*")], HIGH, HIGH),
        ([replace(allow("*"), minimum_level=CRITICAL)], HIGH, CRITICAL),
        ([replace(allow("*"), conditions=parse_conditions({"minimum_level": "high"}))], SecurityLevel.LOW, HIGH),
        ([replace(allow("*"), minimum_level=HIGH), allow("*")], SecurityLevel.LOW, None),
        ([], HIGH, None),
        ([allow("*"), deny("*")], HIGH, None),
        ([replace(allow("*"), minimum_level=HIGH), deny("tools.*")], SecurityLevel.LOW, None),
        ([allow("*"), replace(deny("*"), conditions=parse_conditions({"minimum_level": "high"}))], HIGH, None),
    ],
)
def test_the_level_is_named_where_it_is_all_that_is_lacking(
    grants: list[GrantRule], resource_level: SecurityLevel, demanded: SecurityLevel | None
) -> None:
    decision = ask(grants, "tools.execute", replace(FILES_READ, minimum_level=resource_level))
    assert decision.demanded_level is demanded


def test_what_a_role_denies_counts_below_the_level_that_it_demands_too() -> None:
    denying = replace(deny("tools.execute"), minimum_level=CRITICAL)
    assert not is_allowed([allow("*"), denying], "tools.execute", FILES_READ)


@pytest.mark.parametrize("conditions", [{"unheard_of": 1}, {"networks": ["10.0.0.0/33"]}, [], "x", None])
def test_a_broken_condition_opens_nothing(conditions: object) -> None:
    broken = parse_conditions(conditions)
    assert broken.is_broken
    assert not is_allowed([replace(allow("*"), conditions=broken)], "tools.view", FILES_READ)
    assert not is_allowed([allow("*"), replace(deny("*"), conditions=broken)], "tools.view", FILES_READ)
    assert not may_ever(grants=[allow("*"), replace(deny("*"), conditions=broken)], action="tools.view", scopes=())


# Three mistakes that others have published


def test_a_scope_of_a_group_is_not_always_true() -> None:
    """One's own resources are those that bear one's id: one without an owner is nobody's, and another's is not mine."""
    own = [allow("*", "*:*@own")]
    assert not is_allowed(own, "executions.view", Resource(kind="execution", name="1", owner_id=OTHER))
    assert not is_allowed(own, "executions.view", Resource(kind="execution", name="1", owner_id=None))
    labelled = [allow("*", "tool:*@label=production")]
    assert not is_allowed(labelled, "tools.view", Resource(kind="tool", name="x"))
    scoped_to_nothing_else = ("tools.view",)
    assert not is_allowed([allow("*")], "tools.execute", FILES_READ, scoped_to_nothing_else)


@pytest.mark.parametrize("name", ["xfiles.read", "files.readx", "files.read\n", "\nfiles.read", "a/files.read"])
def test_a_pattern_is_anchored_at_both_ends(name: str) -> None:
    assert not is_allowed([allow("*", "tool:files.read")], "tools.view", Resource(kind="tool", name=name))


@pytest.mark.parametrize("address", ["100.1.2.3", "10.00.0.1", "1.0.0.10", "110.0.0.1", "::ffff:100.1.2.3", "a00::1"])
def test_a_network_is_not_the_beginning_of_a_text(address: str) -> None:
    inside = [replace(allow("*"), conditions=parse_conditions({"networks": ["10.0.0.0/8"]}))]
    there = replace(HERE, address=parse_address(address))
    assert not is_allowed(inside, "tools.view", FILES_READ, (), there)
    assert is_allowed(inside, "tools.view", FILES_READ, (), replace(HERE, address=parse_address("::ffff:10.9.8.7")))
