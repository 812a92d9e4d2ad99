"""The policy: its grammar, its decision, and what must hold whatever the rules are."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.domain.messages import SecurityLevel
from protocol.ports import Resource
from security.domain.conditions import Circumstances
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
    lambda kind, name, owner_id: Resource(kind=kind, name=name, owner_id=owner_id),
    st.sampled_from(["tool", "execution", "tools"]),
    NAMES,
    st.sampled_from([None, ME, OTHER]),
)
RESOURCE_PATTERNS = st.builds(
    lambda kind, name, suffix: f"{kind}:{name}{suffix}",
    st.sampled_from(["*", "tool", "execution", "t*", "*tool*"]),
    st.from_regex(r"[ab.*]{1,5}", fullmatch=True),
    st.sampled_from(["", "@own"]),
)
RULES = st.builds(
    lambda effect, action, resource: GrantRule(effect=effect, action_pattern=action, resource_pattern=resource),
    st.sampled_from(Effect),
    ACTION_PATTERNS,
    RESOURCE_PATTERNS,
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
    ["", "*", "tool", "tool:", ":x", "tool:x@", "tool:x@other", "tool:@own", "tool:x@own@own", "tool:x y", "Tool:x",
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


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES, st.randoms(use_true_random=False))
def test_the_order_of_grants_has_no_say(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...], random: object
) -> None:
    shuffled = list(grants)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis types it as any Random
    first = ask(grants, action, resource, scopes)
    second = ask(shuffled, action, resource, scopes)
    assert (first.is_allowed, first.reason) == (second.is_allowed, second.reason)


@given(RULE_LISTS, RULES, ACTIONS, RESOURCES, SCOPES)
def test_adding_a_deny_never_widens(
    grants: list[GrantRule], rule: GrantRule, action: str, resource: Resource, scopes: tuple[str, ...]
) -> None:
    denying = deny(rule.action_pattern, rule.resource_pattern)
    if is_allowed([*grants, denying], action, resource, scopes):
        assert is_allowed(grants, action, resource, scopes)


@given(RULE_LISTS, RULES, ACTIONS, RESOURCES)
def test_adding_an_allow_never_narrows(
    grants: list[GrantRule], rule: GrantRule, action: str, resource: Resource
) -> None:
    if is_allowed(grants, action, resource):
        assert is_allowed([*grants, allow(rule.action_pattern, rule.resource_pattern)], action, resource)


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES)
def test_scopes_only_narrow(grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...]) -> None:
    if is_allowed(grants, action, resource, scopes):
        assert is_allowed(grants, action, resource)


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES)
def test_nothing_is_allowed_without_an_allow_that_names_it(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...]
) -> None:
    decision = ask(grants, action, resource, scopes)
    matching = [rule for rule in grants if rule.matches(principal_id=ME, action=action, resource=resource)]
    effects = {rule.effect for rule in matching}
    assert decision.is_allowed <= (effects == {Effect.ALLOW})


@given(RULE_LISTS, ACTIONS, RESOURCES, SCOPES)
def test_the_first_gate_never_shuts_out_what_would_be_allowed(
    grants: list[GrantRule], action: str, resource: Resource, scopes: tuple[str, ...]
) -> None:
    if is_allowed(grants, action, resource, scopes):
        assert may_ever(grants=grants, action=action, scopes=scopes)


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
