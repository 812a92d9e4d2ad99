"""The audit record: one event for each act that matters, written in the transaction of the act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from protocol import statements
from protocol.evidence import get_evidence
from protocol.ports import Principal, Resource
from security.domain.audit_actions import require_registered
from security.models import Account, AuditEvent


def record_event(
    *,
    action: str,
    resource: Resource,
    outcome: str,
    principal: Principal | None = None,
    trace_id: str = "",
    data: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Record who did what to what, with what outcome. Without ``principal`` it was the server itself.

    ``data`` is JSON and holds no secret; inputs and outputs stand with the run that it names. Where a signed command is
    being run, its evidence is kept with it (``domain.signatures.verify_evidence``).

    Raises:
        UnregisteredEvent: no app's table of recorded actions has this action, kind of resource or datum: a mistake in
            the code.
    """
    require_registered(action=action, kind=resource.kind, data=data.keys() if data else frozenset())
    event = AuditEvent(
        actor_id=None if principal is None else principal.id,
        actor_name="" if principal is None else principal.name,
        credential_id=None if principal is None else principal.credential_id,
        action=action,
        resource_kind=resource.kind,
        resource_name=resource.name,
        outcome=outcome,
        trace_id=trace_id,
        data_json=msgspec.json.encode(_add_evidence(data or {})).decode(),
    )
    statements.insert(event)
    return event


def record_account_event(
    *,
    action: str,
    account: Account,
    outcome: str,
    principal: Principal | None,
    trace_id: str,
    data: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """As ``record_event``, of what was done to an account: its id stands beside its name, which may change."""
    return record_event(
        action=action,
        resource=Resource(kind="account", name=account.username, owner_id=account.id),
        outcome=outcome,
        principal=principal,
        trace_id=trace_id,
        data={"account_id": str(account.id), **(data or {})},
    )


def _add_evidence(data: Mapping[str, Any]) -> Mapping[str, Any]:
    evidence = get_evidence()
    return {**data, "evidence": evidence} if evidence else data
