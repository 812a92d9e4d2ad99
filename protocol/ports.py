"""What the message kernel needs from others, as ports; who provides it binds it in its ``AppConfig.ready``.

``security`` binds them all today. Nothing here knows how a principal is found or a decision is made.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from protocol.domain.channel import KeyAgreer
from protocol.domain.messages import Authentication, SecurityLevel
from protocol.domain.signed import SignedMessage
from protocol.errors import AccessDenied, MCPError, Misconfigured, SecurityLevelTooLow
from protocol.evidence import Evidence


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
    remote_address: str | None = None
    """From where it speaks; ``None``: a Unix socket, or the server itself."""
    security_level: SecurityLevel = SecurityLevel.STANDARD
    """Of its connection; HTTP and the console have ``standard``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What an action touches: ``tool`` ``text.count_words``, ``execution`` with its owner, ``session`` …"""

    kind: str
    name: str
    owner_id: uuid.UUID | None = None
    labels: frozenset[str] = frozenset()
    """What an operator has marked it with."""
    minimum_level: SecurityLevel = SecurityLevel.LOW
    """Below which this action on it is refused, whoever asks."""


class Authenticator(Protocol):
    """Turns credentials into a principal, and looks at it again. Called in a database thread, inside no transaction."""

    def authenticate(
        self,
        *,
        credentials: Authentication,
        remote_address: str | None,
        security_level: SecurityLevel = SecurityLevel.STANDARD,
    ) -> Principal:
        """The principal, as it speaks from this address at this level.

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

    def find_demanded_level(self, *, principal: Principal, action: str, resource: Resource) -> SecurityLevel | None:
        """The level at which it would be allowed, where its level is all that the principal lacks."""

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


class StrangersCount(enum.Enum):
    """What is counted of those who have not authenticated, by address."""

    SIGN_INS = "sign-ins"
    """Requests for tokens, and refused credentials."""
    CONNECTIONS = "connections"
    """WebSockets that are opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left of a limit."""

    name: str
    limit: int
    remaining: int
    """For all processes together, as of a moment ago."""
    reset_seconds: float
    """Until all of it is there again."""


class Limiter(Protocol):
    """Counts against limits, the same on every door. All that apply must allow; refused, nothing is counted.

    ``RateLimited`` names the limit in its details and says in ``retry_after_ms`` when there is something again.
    """

    def try_take(self, *, principal: Principal, command: str) -> bool:
        """Count a command of this name, known or not, without waiting; ``False``: ``take`` has to be awaited.

        Raises:
            RateLimited: one too many.
        """

    async def take(self, *, principal: Principal, command: str) -> None:
        """Count it, after ``try_take`` could not; it waits for a moment at most.

        Raises:
            RateLimited: one too many, or the wait was too long.
        """

    def take_in_thread(self, *, principal: Principal, command: str) -> None:
        """As both, for callers that are no coroutine."""

    def get_allowance(self, *, principal: Principal, command: str) -> Allowance | None:
        """What is left of the limit that leaves the least; ``None``: there is none."""

    def take_run(self, *, principal: Principal, tool: str) -> None:
        """Count a run of the tool that is about to be accepted. In a thread, inside no transaction.

        Raises:
            RateLimited: one too many.
        """

    def give_back_run(self, *, principal: Principal, tool: str) -> None:
        """It was not accepted after all."""

    async def take_address(self, *, counted: StrangersCount, address: str | None) -> Allowance:
        """Count one more of a stranger's; ``None``: it has no address.

        Raises:
            RateLimited: one too many.
        """

    def check_address(self, *, counted: StrangersCount, address: str | None) -> None:
        """Count nothing: for what is counted once it has failed.

        Raises:
            RateLimited: one more would be one too many.
        """

    def get_address_key(self, *, address: str | None) -> str:
        """What an address is counted as: an IPv4 address itself, of an IPv6 address its network."""

    def stop(self) -> None:
        """Give back what this process holds. It may take a moment; what comes later is counted all the same."""

    def is_degraded(self) -> bool:
        """Whether this process counts by itself at the moment, with its share of each limit."""


class SessionSignatures(Protocol):
    """Verifies the signed commands of one session, and remembers them. Called on the event loop; it queries nothing."""

    def verify(self, *, principal: Principal, signed: SignedMessage, now: datetime) -> Evidence:
        """What is to be kept as evidence of the command.

        Raises:
            SignatureInvalid: no key that is registered for the account has signed it.
            Replayed: it was taken before, or its timestamp is too far from ``now``.
        """


class SignatureVerifier(Protocol):
    """Whose signatures count."""

    def start_session(self, *, session_id: uuid.UUID) -> SessionSignatures:
        """For the commands of this session."""


class Door(enum.StrEnum):
    """By which way somebody came."""

    WEBSOCKET = "websocket"
    HTTP = "http"
    CONSOLE = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Somebody was refused something for security's sake, or told that it does not exist."""

    code: str
    """Of the error that says so; ``security.access_denied`` where it says that there is nothing, and there is."""
    door: Door
    remote_address: str | None
    principal: Principal | None
    """``None``: nobody knows who it was."""
    kind: str
    """Of what was refused: ``command``, ``request``, ``message``, ``credentials`` …"""
    subject: str
    """The command's or address's name, as the peer gave it."""
    action: str = ""
    """That the policy denied."""
    trace_id: str = ""
    is_awaited: bool = True
    """Whether it is told only once it is on record; otherwise it is counted."""


class Recorder(Protocol):
    """Puts into the audit record what this kernel sees and others do not."""

    def submit_denial(self, denial: Denial) -> Future[None]:
        """Record a denial; done once that is durable, which may take a second. From any thread, without blocking.

        It is done at once where the denial is not awaited. The future fails with an ``MCPError`` where the denial
        cannot be recorded; then that is what is answered.
        """

    def settle(self, *, timeout_seconds: float) -> bool:
        """Wait until what is counted is durable; ``False``: it was not within the time. For a stop; it blocks."""

    def record_authentication(
        self, *, principal: Principal, door: Door, remote_address: str | None, resource: Resource, trace_id: str
    ) -> None:
        """Somebody showed good credentials, by which ``resource`` came to be; called in the transaction of that."""

    def note_request(self, *, principal: Principal, remote_address: str | None) -> None:
        """A request carried good credentials: recorded when they are first seen from there, and now and then. In a
        database thread."""

    def record_session_end(self, *, session_id: uuid.UUID, account_id: uuid.UUID, close_code: int | None) -> None:
        """A session ended with its connection; called in the transaction of that."""


class AddressGuard(Protocol):
    """Says from where nobody may come at all, whoever it is."""

    def is_refused(self, *, remote_address: str | None) -> bool:
        """Whether nobody may. It may query."""

    def is_refused_now(self, *, remote_address: str | None) -> bool | None:
        """As ``is_refused``, on the event loop; ``None``: that has to be asked for, in a database thread."""


_authenticator: Authenticator | None = None
_authorizer: Authorizer | None = None
_address_guard: AddressGuard | None = None
_limiter: Limiter | None = None
_key_agreer: KeyAgreer | None = None
_signature_verifier: SignatureVerifier | None = None
_recorder: Recorder | None = None
_vault: Vault | None = None


def bind(
    *,
    authenticator: Authenticator | None = None,
    authorizer: Authorizer | None = None,
    address_guard: AddressGuard | None = None,
    limiter: Limiter | None = None,
    key_agreer: KeyAgreer | None = None,
    recorder: Recorder | None = None,
    signature_verifier: SignatureVerifier | None = None,
    vault: Vault | None = None,
) -> None:
    """Make these the ports' implementations; what is left out stays. Binding again replaces them (a test's fakes)."""
    global _authenticator, _authorizer, _address_guard, _key_agreer, _limiter, _recorder, _signature_verifier, _vault
    _authenticator = authenticator or _authenticator
    _authorizer = authorizer or _authorizer
    _address_guard = address_guard or _address_guard
    _key_agreer = key_agreer or _key_agreer
    _limiter = limiter or _limiter
    _recorder = recorder or _recorder
    _vault = vault or _vault
    _signature_verifier = signature_verifier or _signature_verifier


def get_authenticator() -> Authenticator:
    if _authenticator is None:
        raise Misconfigured("No installed app binds protocol.ports.Authenticator.")
    return _authenticator


def get_authorizer() -> Authorizer:
    if _authorizer is None:
        raise Misconfigured("No installed app binds protocol.ports.Authorizer.")
    return _authorizer


def get_limiter() -> Limiter:
    if _limiter is None:
        raise Misconfigured("No installed app binds protocol.ports.Limiter.")
    return _limiter


def get_key_agreer() -> KeyAgreer:
    if _key_agreer is None:
        raise Misconfigured("No installed app binds protocol.domain.channel.KeyAgreer.")
    return _key_agreer


def get_signature_verifier() -> SignatureVerifier:
    if _signature_verifier is None:
        raise Misconfigured("No installed app binds protocol.ports.SignatureVerifier.")
    return _signature_verifier


def get_recorder() -> Recorder:
    if _recorder is None:
        raise Misconfigured("No installed app binds protocol.ports.Recorder.")
    return _recorder


def get_vault() -> Vault:
    if _vault is None:
        raise Misconfigured("No installed app binds protocol.ports.Vault.")
    return _vault


def get_address_guard() -> AddressGuard:
    if _address_guard is None:
        raise Misconfigured("No installed app binds protocol.ports.AddressGuard.")
    return _address_guard


def require_allowed(
    *, principal: Principal, action: str, resource: Resource, otherwise: MCPError | None = None
) -> None:
    """Go on only where the action is allowed.

    Raises:
        SecurityLevelTooLow: it would be, at the level that ``details.security_level`` names.
        AccessDenied: it is not; or ``otherwise``, where the principal may not know of the resource.
    """
    authorizer = get_authorizer()
    if authorizer.is_allowed(principal=principal, action=action, resource=resource):
        return
    level = authorizer.find_demanded_level(principal=principal, action=action, resource=resource)
    if level is not None:
        raise SecurityLevelTooLow(
            f"This needs a connection of the level {level.value}.",
            details={"action": action, "security_level": level.value},
        )
    if otherwise is None:
        raise AccessDenied(details={"action": action})
    otherwise.denied_action = action
    raise otherwise
