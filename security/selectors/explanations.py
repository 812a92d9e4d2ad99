"""Who may do what, and why: one decision in words, and everybody for whom one falls as allowed.

The command ``explain`` and the console's page say what is made here, and nothing of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from django.utils import timezone

from protocol.domain.addresses import parse_address
from protocol.domain.messages import SecurityLevel
from protocol.ports import Resource
from security.domain.addresses import AddressVerdict, Pass, is_in_any, parse_network
from security.domain.api_keys import KeyState
from security.domain.authorization import AccountPrincipal
from security.domain.policy import Decision, Effect, PatternInvalid, Reason, parse_action_pattern
from security.domain.resources import get_resource_kinds
from security.models import Account, ApiKey
from security.selectors.access import get_account_principal, list_roles_and_grants, make_account_principal
from security.selectors.accounts import get_account
from security.selectors.address_rules import read_address_rules

MAX_EXPLAINED: Final = 1_000
"""Accounts that are looked through for who may."""


class QuestionInvalid(ValueError):
    """The question is none; the message says why."""


class KeyNotFound(Exception):
    """The account has no key that begins so, or several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, but for whom: under which circumstances is somebody allowed an action on a resource?"""

    action: str
    resource: Resource
    is_own: bool = False
    """Whether the resource is the account's own."""
    remote_address: str | None = None
    """``None``: from an address that is not known."""
    security_level: SecurityLevel = SecurityLevel.STANDARD


def make_question(
    *,
    action: str,
    resource: str,
    labels: frozenset[str] = frozenset(),
    is_own: bool = False,
    remote_address: str | None = None,
    security_level: SecurityLevel = SecurityLevel.STANDARD,
) -> Question:
    """The question of these texts; labels and demanded level of a resource that there is are its own.

    Raises:
        QuestionInvalid: a text is not what it should be.
    """
    try:
        parse_action_pattern(action)
    except PatternInvalid as error:
        raise QuestionInvalid(f"{action} is not an action such as tools.execute.") from error
    if "*" in action:
        raise QuestionInvalid("Ask for one action, without *.")
    kind, colon, name = resource.partition(":")
    if not (kind and colon and name) or "*" in resource:
        raise QuestionInvalid(f"{resource} is not one resource such as tool:text.count_words.")
    if remote_address and parse_address(remote_address) is None:
        raise QuestionInvalid(f"{remote_address} is not an address such as 192.0.2.7.")
    known = get_resource_kinds().get(kind)
    found = known.find(name, action) if known is not None and known.find is not None else None
    asked = found or Resource(kind=kind, name=name)
    return Question(
        action=action,
        resource=replace(asked, labels=asked.labels | labels),
        is_own=is_own,
        remote_address=remote_address or None,
        security_level=security_level,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What policy says of an account, or of one of its keys, and what it decides by."""

    account: Account
    api_key: ApiKey | None
    key_state: KeyState | None
    roles: tuple[str, ...]
    decision: Decision
    address_verdict: AddressVerdict
    is_in_key_networks: bool

    @property
    def has_active_key(self) -> bool:
        return self.key_state is KeyState.ACTIVE

    @property
    def is_allowed(self) -> bool:
        has_credential = self.api_key is None or (self.has_active_key and self.is_in_key_networks)
        return self.account.is_active and has_credential and self.address_verdict.is_passed and self.decision.is_allowed

    def describe(self) -> str:
        """Why, in words."""
        if not self.account.is_active:
            return "the account is inactive"
        if self.api_key is not None and self.key_state is not None and not self.has_active_key:
            return f"the key {self.api_key.prefix} is {self.key_state.value}"
        refusal = self._describe_address()
        return refusal or self._describe_decision()

    def _describe_address(self) -> str:
        if self.address_verdict.outcome is Pass.DENIED and self.address_verdict.rule is not None:
            return f"an address rule denies {self.address_verdict.rule.network}"
        if self.address_verdict.outcome is Pass.NOT_LISTED:
            return "address rules allow others only, and not this address"
        if self.api_key is not None and not self.is_in_key_networks:
            return f"the key {self.api_key.prefix} is taken from {', '.join(self.api_key.networks)} only"
        return ""

    def _describe_decision(self) -> str:
        match self.decision.reason:
            case Reason.NOT_GRANTED:
                roles = ", ".join(self.roles)
                return f"no grant of its roles ({roles}) allows that" if roles else "it has no role"
            case Reason.OUT_OF_SCOPE:
                assert self.api_key is not None  # noqa: S101  # only a key has scopes
                scopes = ", ".join(self.api_key.scopes)
                return f"{self._describe_rule()}, but the key {self.api_key.prefix} has the scopes {scopes}"
            case Reason.LEVEL_TOO_LOW:
                level = self.decision.demanded_level
                assert level is not None  # noqa: S101  # a decision for this reason has it
                return f"{self._describe_rule()}, but the level {level.value} is demanded"
            case Reason.GRANTED | Reason.DENIED:
                return self._describe_rule()

    def _describe_rule(self) -> str:
        rule = self.decision.rule
        assert rule is not None  # noqa: S101  # a decision for one of these reasons has its rule
        verb = "denies" if rule.effect is Effect.DENY else "allows"
        conditions = rule.conditions.describe()
        only = f", only {conditions}" if conditions else ""
        return f"the role {rule.role} {verb} {rule.action_pattern} on {rule.resource_pattern}{only}"


def explain_access(*, username: str, key_prefix: str | None, question: Question) -> Explanation:
    """Whether the account of this name is allowed it, with its key that begins so where one is given.

    Raises:
        Account.DoesNotExist: there is none.
        KeyNotFound: it has no such key, or several.
    """
    account = get_account(username=username)
    api_key = None if key_prefix is None else get_api_key(account=account, prefix=key_prefix)
    return _explain(get_account_principal(account=account), account=account, api_key=api_key, question=question)


def list_allowed(*, question: Question) -> list[Explanation]:
    """Of the first ``MAX_EXPLAINED`` active accounts those that are allowed it, by name, each with why."""
    accounts = list(Account.objects.filter(is_active=True).order_by("username")[:MAX_EXPLAINED])
    held = list_roles_and_grants(account_ids=[account.id for account in accounts])
    found = []
    for account in accounts:
        own = held[account.id]
        # With a grant that cannot be read it is let in nowhere.
        if own is not None:
            principal = make_account_principal(account=account, held=own)
            found.append(_explain(principal, account=account, api_key=None, question=question))
    return [explanation for explanation in found if explanation.is_allowed]


def _explain(
    principal: AccountPrincipal, *, account: Account, api_key: ApiKey | None, question: Question
) -> Explanation:
    now = timezone.now()
    asking = replace(
        principal,
        scopes=() if api_key is None else tuple(api_key.scopes),
        remote_address=question.remote_address,
        security_level=question.security_level,
    )
    owned = replace(question.resource, owner_id=account.id) if question.is_own else question.resource
    address = asking.address
    # Without an address nothing is asked about one.
    verdict = (
        AddressVerdict(outcome=Pass.PASSED)
        if address is None
        else read_address_rules().judge(
            address, account_id=account.id, api_key_id=None if api_key is None else api_key.id
        )
    )
    networks = [] if api_key is None or address is None else [parse_network(text) for text in api_key.networks]
    return Explanation(
        account=account,
        api_key=api_key,
        key_state=None if api_key is None else api_key.get_state(now=now),
        roles=asking.roles,
        decision=asking.decide(action=question.action, resource=owned, at=now),
        address_verdict=verdict,
        is_in_key_networks=not networks or address is None or is_in_any(address=address, networks=networks),
    )


def get_api_key(*, account: Account, prefix: str) -> ApiKey:
    """The account's key that begins so.

    Raises:
        KeyNotFound: there is none, or several.
    """
    # What is kept of a key's text is its beginning; more of it may be given.
    found = [key for key in account.api_keys.all() if key.prefix.startswith(prefix) or prefix.startswith(key.prefix)]
    if not prefix or len(found) != 1:
        raise KeyNotFound
    return found[0]
