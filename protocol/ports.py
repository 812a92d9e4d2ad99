"""What the message kernel needs from others, as ports; who provides it binds it in its ``AppConfig.ready``.

``security`` binds them all today. Nothing here knows how a principal is found or a decision is made.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from protocol.domain.messages import Authentication, SecurityLevel
from protocol.errors import Misconfigured


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is at the other end. Providers may subclass it to carry what their decisions need."""

    id: uuid.UUID
    """The account's id."""
    name: str
    roles: tuple[str, ...]
    security_level_max: SecurityLevel
    credential_id: uuid.UUID
    """Of the key or token that was shown; what revocation names."""
    expires_at: datetime | None
    """When the credential ends; ``None``: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What an action touches: ``tool`` ``text.count_words``, ``execution`` with its owner, ``session`` …"""

    kind: str
    name: str
    owner_id: uuid.UUID | None = None


class Authenticator(Protocol):
    """Turns credentials into a principal, and looks at it again. Called in a database thread, inside no transaction."""

    def authenticate(self, *, credentials: Authentication, remote_address: str | None) -> Principal:
        """The principal.

        Raises:
            AuthenticationFailed: whatever was wrong; it never says which part.
            MCPError: there were too many wrong ones; its ``retry_after_ms`` says when the next is looked at.
        """

    def get_mark(self) -> int:
        """A number that changes with every revocation and every change of what anybody may do. One cheap query."""

    def renew(self, principals: Sequence[Principal]) -> list[Principal | None]:
        """The principals as they are now, in the same order; ``None`` for one whose credential was revoked.

        Asked for only when the mark has moved.
        """


class Authorizer(Protocol):
    """Decides. Pure CPU, no query: it is called on the event loop for every command."""

    def is_allowed(self, *, principal: Principal, action: str, resource: Resource) -> bool: ...

    def reaches_others(self, *, principal: Principal, action: str, kind: str) -> bool:
        """Whether the action may be allowed on resources of the kind that others own.

        ``False`` is certain: a list needs only look at what the principal owns. Each resource is still asked for.
        """

    def may_ever(self, *, principal: Principal, action: str) -> bool:
        """Whether there can be a resource on which the action is allowed: the gate before arguments are decoded.

        ``False`` is certain; after ``True`` the resource itself still has to be asked for by ``is_allowed``.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What a vault made of a plaintext; the key's id is stored beside the data."""

    key_id: str
    data: bytes


class Vault(Protocol):
    """Seals what the database holds in confidence (AES-256-GCM). May query: called in a database thread.

    ``aad`` binds the data to its place: the model, the field and the row, so that it opens nowhere else.
    """

    def seal(self, *, plaintext: bytes, aad: bytes) -> Sealed: ...

    def open(self, *, key_id: str, data: bytes, aad: bytes) -> bytes:
        """What was sealed, whichever key did it.

        Raises:
            Exception: anything is not as it was; there is nothing that the caller could do about it.
        """


_authenticator: Authenticator | None = None
_authorizer: Authorizer | None = None
_vault: Vault | None = None


def bind(
    *,
    authenticator: Authenticator | None = None,
    authorizer: Authorizer | None = None,
    vault: Vault | None = None,
) -> None:
    """Make these the ports' implementations; what is left out stays. Binding again replaces them (a test's fakes)."""
    global _authenticator, _authorizer, _vault
    _authenticator = authenticator or _authenticator
    _authorizer = authorizer or _authorizer
    _vault = vault or _vault


def get_authenticator() -> Authenticator:
    if _authenticator is None:
        raise Misconfigured("No installed app binds protocol.ports.Authenticator.")
    return _authenticator


def get_authorizer() -> Authorizer:
    if _authorizer is None:
        raise Misconfigured("No installed app binds protocol.ports.Authorizer.")
    return _authorizer


def get_vault() -> Vault:
    if _vault is None:
        raise Misconfigured("No installed app binds protocol.ports.Vault.")
    return _vault
