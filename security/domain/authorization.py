"""The principal that this app hands out, and the authorizer that decides from what it carries.

A principal is a snapshot: the grants are those of the moment of authentication. What belongs here neither queries nor
waits, since it runs on the event loop for every command; the rules of the decision are ``policy``'s.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from protocol.domain.addresses import Address, parse_address
from protocol.domain.messages import SecurityLevel
from protocol.ports import Principal, Resource
from security.domain import policy
from security.domain.conditions import Circumstances
from security.domain.limits import LimitRule
from security.domain.policy import Decision, GrantRule
from security.domain.signatures import CommandPublicKey

MAX_REMEMBERED_DECISIONS: Final = 1024
_MAX_REMEMBERED_NAME_LENGTH: Final = 200


class CredentialKind(enum.StrEnum):
    """What a principal showed."""

    NONE = "none"
    """It is known otherwise: the console's session, the command line."""
    API_KEY = "api_key"
    TOKEN = "token"  # noqa: S105  # a kind, no secret
    PASSWORD = "password"  # noqa: S105  # a kind, no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountPrincipal(Principal):
    """An account with what its roles grant, narrowed by the scopes of the credential that it showed."""

    grants: tuple[GrantRule, ...]
    scopes: tuple[str, ...] = ()
    credential: CredentialKind = CredentialKind.NONE
    api_key_id: uuid.UUID | None = None
    """The key that was shown, or that the shown token was obtained with."""
    limits: tuple[LimitRule, ...] = ()
    """Those that operators set and that are about whoever this is."""
    command_keys: tuple[CommandPublicKey, ...] = ()
    """The keys with which the account signs commands; looked up only where it may use level critical."""
    password_stamp: str = field(default="", repr=False)
    """Of the password that was shown: it tells whether the account still has that one."""
    address: Address | None = field(init=False, default=None)
    limit_plans: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What counts the limits remembers here of each command."""
    _decisions: dict[tuple[str, Resource], Decision] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", parse_address(self.remote_address))
        for scope in self.scopes:
            policy.parse_action_pattern(scope)

    def decide(self, *, action: str, resource: Resource, at: datetime) -> Decision:
        """``policy.decide`` for this principal at that time, remembered for as long as it holds."""
        key = (action, resource)
        decision = self._decisions.get(key)
        if decision is None or (decision.ends_at is not None and decision.ends_at <= at):
            decision = policy.decide(
                grants=self.grants,
                principal_id=self.id,
                action=action,
                resource=resource,
                scopes=self.scopes,
                circumstances=Circumstances(address=self.address, security_level=self.security_level, at=at),
            )
            self._remember(key, decision)
        return decision

    def _remember(self, key: tuple[str, Resource], decision: Decision) -> None:
        # Names come from clients: neither many nor long ones may fill the memory.
        if len(key[1].name) > _MAX_REMEMBERED_NAME_LENGTH:
            return
        if len(self._decisions) >= MAX_REMEMBERED_DECISIONS:
            self._decisions.clear()
        self._decisions[key] = decision


def limit_level(level_max: SecurityLevel, *, has_command_key: bool) -> SecurityLevel:
    """The highest level that an account's connections can have: without a key nothing of its can be signed."""
    if level_max is SecurityLevel.CRITICAL and not has_command_key:
        return SecurityLevel.HIGH
    return level_max


class PolicyAuthorizer:
    """``protocol.ports.Authorizer`` over the grants that the principal carries. ``clock`` gives the time in UTC."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock

    def is_allowed(self, *, principal: Principal, action: str, resource: Resource) -> bool:
        """Whether the policy allows it; a principal that this app did not make is allowed nothing."""
        return (
            isinstance(principal, AccountPrincipal)
            and principal.decide(action=action, resource=resource, at=self._clock()).is_allowed
        )

    def find_demanded_level(self, *, principal: Principal, action: str, resource: Resource) -> SecurityLevel | None:
        """The level at which it would be allowed, where its level is all that the principal lacks."""
        if not isinstance(principal, AccountPrincipal):
            return None
        return principal.decide(action=action, resource=resource, at=self._clock()).demanded_level

    def reaches_others(self, *, principal: Principal, action: str, kind: str) -> bool:
        """Whether a grant allows the action on resources of the kind that others own."""
        return isinstance(principal, AccountPrincipal) and policy.reaches_others(
            grants=principal.grants, action=action, kind=kind
        )

    def may_ever(self, *, principal: Principal, action: str) -> bool:
        """Whether some resource may exist on which the principal is allowed the action."""
        return isinstance(principal, AccountPrincipal) and policy.may_ever(
            grants=principal.grants, action=action, scopes=principal.scopes
        )
