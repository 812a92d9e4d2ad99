"""Changing rules of addresses, and refusing who comes from where it is not let in."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction

from protocol.domain.addresses import parse_address
from protocol.errors import IpDenied
from protocol.ports import Principal, Resource
from security import selectors
from security.domain.addresses import AddressRules, is_in_any, parse_network
from security.models import Account, AddressRule, ApiKey
from security.services import audit

logger = logging.getLogger(__name__)

CHANGE_RULES: Final = "addresses.change"


def is_address_taken(
    *, rules: AddressRules, remote_address: str | None, account_id: uuid.UUID, api_key: ApiKey | None
) -> bool:
    """Whether the account may come from there, with this key where it showed one: by all rules, and by the key."""
    address = parse_address(remote_address)
    if not rules.judge(address, account_id=account_id, api_key_id=api_key.id if api_key else None).is_passed:
        return False
    if api_key is None or not api_key.networks:
        return True
    return address is not None and is_in_any(
        address=address, networks=[parse_network(text) for text in api_key.networks]
    )


def require_address(remote_address: str | None, *, account_id: uuid.UUID, api_key: ApiKey | None) -> None:
    """Go on only where the account may come from there.

    Raises:
        IpDenied: it may not.
    """
    if not is_address_taken(
        rules=selectors.get_address_rules(), remote_address=remote_address, account_id=account_id, api_key=api_key
    ):
        logger.info("Account %s refused from %s by its address", account_id, remote_address)
        raise IpDenied


def save_address_rule(
    *, rule: AddressRule, actor: Account, principal: Principal, trace_id: str, is_confirmed: bool
) -> None:
    """Store a new or changed rule; open connections that it refuses close within a second.

    Raises:
        ValidationError: it is not valid; or, unless ``is_confirmed``, it would shut the actor out of where it is now.
    """
    rule.full_clean()
    if not is_confirmed:
        refuse_lock_out(rule, without=rule.pk, actor=actor, principal=principal)
    with transaction.atomic():
        is_new = rule.pk is None
        rule.save()
        _record(rule, "added" if is_new else "changed", principal=principal, trace_id=trace_id)


def delete_address_rule(*, rule: AddressRule, actor: Account, principal: Principal, trace_id: str) -> None:
    """Take the rule away.

    Raises:
        ValidationError: without it the actor would be shut out of where it is now; disabling it asks and can be
            confirmed.
    """
    refuse_lock_out(None, without=rule.pk, actor=actor, principal=principal)
    with transaction.atomic():
        _record(rule, "deleted", principal=principal, trace_id=trace_id)
        rule.delete()


def disable_address_rules(*, ids: list[int] | None) -> int:
    """Let these rules, or all, count no more: the way back in, from the command line. How many did count."""
    rules = AddressRule.objects.select_for_update().filter(is_enabled=True)
    with transaction.atomic():
        found = list(rules if ids is None else rules.filter(pk__in=ids))
        for rule in found:
            rule.is_enabled = False
            rule.save(update_fields=["is_enabled"])
            _record(rule, "disabled", principal=None, trace_id="")
    return len(found)


def refuse_lock_out(rule: AddressRule | None, *, without: int | None, actor: Account, principal: Principal) -> None:
    """Go on only where the actor is still let in with this rule stored and that one gone.

    Raises:
        ValidationError: it comes from where it would not be.
    """
    verdict = selectors.judge_with_rule(
        rule=rule, without=without, account=actor, remote_address=principal.remote_address
    )
    if not verdict.is_passed:
        raise ValidationError(
            f"This would shut you out: you come from {principal.remote_address or 'no address'}, which would not be "
            "let in any more.",
            code="locks_out",
        )


def _record(rule: AddressRule, outcome: str, *, principal: Principal | None, trace_id: str) -> None:
    audit.record_event(
        action=CHANGE_RULES,
        principal=principal,
        resource=Resource(kind="address_rule", name=str(rule.pk)),
        outcome=outcome,
        trace_id=trace_id,
        data={
            "effect": str(rule.effect),
            "network": rule.network,
            "account_id": None if rule.account_id is None else str(rule.account_id),
            "api_key_id": None if rule.api_key_id is None else str(rule.api_key_id),
            "is_enabled": rule.is_enabled,
        },
    )
    logger.info("Address rule %s %s", rule, outcome)
