"""The authorizer over a principal's grants, and what a principal remembers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.domain.messages import SecurityLevel
from protocol.ports import Principal, Resource
from security.domain.authorization import MAX_REMEMBERED_DECISIONS, PolicyAuthorizer
from security.domain.policy import PatternInvalid
from tests.factories import allow, deny, make_principal

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
TOOL = Resource(kind="tool", name="files.read")


def test_the_same_question_gets_the_same_answer_again() -> None:
    authorizer = PolicyAuthorizer(clock=timezone.now)
    principal = make_principal(grants=[allow("tools.*", "tool:files.*"), deny("tools.*", "tool:files.write")])
    for _ in range(2):
        assert authorizer.is_allowed(principal=principal, action="tools.execute", resource=TOOL)
        assert not authorizer.is_allowed(
            principal=principal, action="tools.execute", resource=Resource(kind="tool", name="files.write")
        )


def test_what_is_remembered_of_one_owner_is_not_said_of_another() -> None:
    authorizer = PolicyAuthorizer(clock=timezone.now)
    principal = make_principal(grants=[allow("executions.view", "execution:*@own")])
    mine = Resource(kind="execution", name="1", owner_id=principal.id)
    others = Resource(kind="execution", name="1", owner_id=uuid7())
    assert authorizer.is_allowed(principal=principal, action="executions.view", resource=mine)
    assert not authorizer.is_allowed(principal=principal, action="executions.view", resource=others)


def test_decisions_are_not_shared_between_principals() -> None:
    authorizer = PolicyAuthorizer(clock=timezone.now)
    assert authorizer.is_allowed(principal=make_principal(grants=[allow("*")]), action="tools.view", resource=TOOL)
    assert not authorizer.is_allowed(principal=make_principal(), action="tools.view", resource=TOOL)


def test_what_is_remembered_is_bounded() -> None:
    principal = make_principal(grants=[allow("tools.view", "tool:*")])
    for number in range(3 * MAX_REMEMBERED_DECISIONS):
        assert principal.decide(
            action="tools.view", resource=Resource(kind="tool", name=f"t{number}"), at=NOW
        ).is_allowed
    assert 0 < len(principal._decisions) <= MAX_REMEMBERED_DECISIONS
    principal._decisions.clear()
    assert principal.decide(action="tools.view", resource=Resource(kind="tool", name="x" * 100_000), at=NOW).is_allowed
    assert not principal._decisions


def test_a_principal_of_another_make_is_allowed_nothing() -> None:
    stranger = Principal(
        id=uuid7(),
        name="x",
        roles=("operator",),
        security_level_max=SecurityLevel.HIGH,
        credential_id=uuid7(),
        expires_at=None,
    )
    authorizer = PolicyAuthorizer(clock=timezone.now)
    assert not authorizer.is_allowed(principal=stranger, action="tools.view", resource=TOOL)
    assert not authorizer.may_ever(principal=stranger, action="tools.view")


def test_the_first_gate_reads_grants_and_scopes() -> None:
    authorizer = PolicyAuthorizer(clock=timezone.now)
    principal = make_principal(grants=[allow("tools.*", "tool:*")], scopes=["tools.view"])
    assert authorizer.may_ever(principal=principal, action="tools.view")
    assert not authorizer.may_ever(principal=principal, action="tools.execute")
    assert not authorizer.may_ever(principal=principal, action="executions.view")


def test_a_scope_that_does_not_parse_makes_no_principal() -> None:
    with pytest.raises(PatternInvalid):
        make_principal(scopes=["Tools"])
