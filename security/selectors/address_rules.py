"""The rules of addresses as every process has them: read again when the mark has moved, asked for twice a second.

Every connection and every request asks, so that they are kept. What is read late by half a second is looked at again
by whoever has an open connection (``services.renewal``).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from protocol.domain.addresses import parse_address
from protocol.errors import StorageUnavailable
from security.domain.addresses import AddressRule as Rule
from security.domain.addresses import AddressRules, AddressVerdict, NetworkInvalid
from security.models import Account, AddressRule
from security.selectors.credentials import get_revocation_mark

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
"""How old the mark gets before it is read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    rules: AddressRules
    mark: int
    looked_tick: float
    """Monotonic seconds."""


_kept: _Kept | None = None
_lock = threading.Lock()


def get_address_rules() -> AddressRules:
    """The rules that count, at most ``LOOK_SECONDS`` late."""
    global _kept
    found = peek_address_rules()
    if found is not None:
        return found
    with _lock:
        before = _kept
        tick = time.monotonic()
        # First: a rule that comes while they are read has moved the mark by the next look.
        mark = get_revocation_mark()
        rules = before.rules if before is not None and before.mark == mark else read_address_rules()
        _kept = _Kept(rules=rules, mark=mark, looked_tick=tick)
        return rules


def peek_address_rules() -> AddressRules | None:
    """The rules where nothing has to be read for them, and so on the event loop too."""
    kept = _kept
    is_fresh = kept is not None and time.monotonic() - kept.looked_tick < LOOK_SECONDS
    return kept.rules if kept is not None and is_fresh else None


def get_last_known_address_rules() -> AddressRules | None:
    """The rules as they were, for as long as the database is away."""
    return None if _kept is None else _kept.rules


def forget_address_rules() -> None:
    """Read them anew the next time: this process has changed one."""
    global _kept
    _kept = None


def read_address_rules() -> AddressRules:
    """The rules that count, from the database.

    A stored network that cannot be read is that of everything where it denies, and none where it allows.
    """
    everyone: list[Rule] = []
    accounts: defaultdict[uuid.UUID, list[Rule]] = defaultdict(list)
    api_keys: defaultdict[uuid.UUID, list[Rule]] = defaultdict(list)
    for row in AddressRule.objects.filter(is_enabled=True).order_by("id"):
        for rule in _read(row):
            if row.account_id is not None:
                accounts[row.account_id].append(rule)
            elif row.api_key_id is not None:
                api_keys[row.api_key_id].append(rule)
            else:
                everyone.append(rule)
    return AddressRules(
        everyone=tuple(everyone),
        accounts={key: tuple(rules) for key, rules in accounts.items()},
        api_keys={key: tuple(rules) for key, rules in api_keys.items()},
    )


def _read(row: AddressRule) -> list[Rule]:
    try:
        return [row.as_rule()]
    except NetworkInvalid:
        logger.warning("The address rule %s is not valid: %r is no network", row.pk, row.network)
        # Kept as one that matches nothing, so that an allow still demands a match; a deny refuses everybody.
        networks = ("0.0.0.0/0", "::/0") if row.effect == AddressRule.Effect.DENY else ("0.0.0.0/32",)
        return [AddressRule(pk=row.pk, effect=row.effect, network=network).as_rule() for network in networks]


class RulesGuard:
    """``protocol.ports.AddressGuard`` over the rules for everyone."""

    def is_refused(self, *, remote_address: str | None) -> bool:
        """Whether nobody may come from there.

        Raises:
            StorageUnavailable: the database is away, and was since this process began.
        """
        try:
            rules = get_address_rules()
        except Exception as error:
            known = get_last_known_address_rules()
            if known is None:
                raise StorageUnavailable(retry_after_ms=1000) from error
            rules = known
        return not rules.judge_stranger(parse_address(remote_address)).is_passed

    def is_refused_now(self, *, remote_address: str | None) -> bool | None:
        """As ``is_refused``, without waiting: ``None`` where the rules have to be read."""
        rules = peek_address_rules()
        return None if rules is None else not rules.judge_stranger(parse_address(remote_address)).is_passed


def judge_with_rule(
    *, rule: AddressRule | None, without: int | None, account: Account, remote_address: str | None
) -> AddressVerdict:
    """Whether the account may still come from there, with this rule stored and that one gone."""
    rows = [row for row in AddressRule.objects.filter(is_enabled=True, api_key=None) if row.pk != without]
    if rule is not None and rule.is_enabled and rule.api_key_id is None:
        rows.append(rule)
    rules = AddressRules(
        everyone=tuple(found for row in rows if row.account_id is None for found in _read(row)),
        accounts={account.id: tuple(found for row in rows if row.account_id == account.id for found in _read(row))},
    )
    return rules.judge(parse_address(remote_address), account_id=account.id)
