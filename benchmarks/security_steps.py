"""What security does to each message, step by step: acts that can be repeated, with answers that can be checked."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BATCH: Final = 200
"""What is prepared at a time, outside of what is measured."""
DENIAL_BATCH: Final = 20
MANY_GRANTS: Final = 200
SIZES: Final = {"400 B": 400, "4 KB": 4096}
ADDRESS: Final = "192.0.2.7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a message's way."""

    name: str
    prepare: Callable[[], Sequence[Any]]
    """What the next batch is done with; not measured."""
    act: Callable[[Any], object]
    is_right: Callable[[object], bool]


@contextmanager
def open_steps() -> Iterator[list[Step]]:
    """The steps, over a database and a Valkey that go with them."""
    with tempfile.TemporaryDirectory(prefix="mcp-security-") as name:
        folder = Path(name)
        (folder / "var").mkdir(mode=0o700)
        os.environ |= {
            "MCP_DATA_DIR": str(folder / "var"),
            "DJANGO_SETTINGS_MODULE": "mcp_site.settings",
            "MCP_REQUESTS_PER_MINUTE": "100000000",
        }
        import django  # noqa: PLC0415  # the data folder is set first

        django.setup()
        from django.core.management import call_command  # noqa: PLC0415  # as above

        from tests.keys import ensure_keys  # noqa: PLC0415  # as above
        from tests.services import run_valkey  # noqa: PLC0415  # as above

        call_command("migrate", verbosity=0)
        ensure_keys()
        with run_valkey(socket=folder / "broker.sock", data_dir=folder):
            yield [
                *list_authentication(),
                *list_policy(),
                *list_limits(f"unix://{folder / 'broker.sock'}"),
                *list_sealing(),
                make_signature_step(),
                make_denial_step(),
            ]


def list_authentication() -> list[Step]:
    """Credentials to a principal, with the queries that are asked each time."""
    from protocol.domain.messages import ApiKeyCredentials, JwtCredentials  # noqa: PLC0415  # Django is set up first
    from protocol.ports import get_authenticator  # noqa: PLC0415  # as above
    from tests.factories import issue_key, issue_tokens  # noqa: PLC0415  # as above

    key = issue_key()
    shown = {
        "authenticate: token, its signature checked before": JwtCredentials(token=issue_tokens(key=key).access),
        "authenticate: API key": ApiKeyCredentials(key=key.secret),
    }
    authenticator = get_authenticator()
    return [
        Step(
            name=name,
            prepare=lambda credentials=credentials: [credentials] * BATCH,  # type: ignore[misc]  # a lambda's default
            act=lambda given: authenticator.authenticate(credentials=given, remote_address=ADDRESS),
            is_right=lambda principal: getattr(principal, "id", None) == key.api_key.account_id,
        )
        for name, credentials in shown.items()
    ]


def list_policy() -> list[Step]:
    """Decisions, remembered and new, of a principal with the agent's grants and of one with many under conditions."""
    from django.utils import timezone  # noqa: PLC0415  # Django is set up first

    from protocol.ports import Resource  # noqa: PLC0415  # as above
    from security.domain.authorization import PolicyAuthorizer  # noqa: PLC0415  # as above
    from security.domain.builtin_roles import BUILTIN_ROLES  # noqa: PLC0415  # as above
    from security.domain.conditions import parse_conditions  # noqa: PLC0415  # as above
    from security.domain.policy import Effect, GrantRule  # noqa: PLC0415  # as above
    from tests.factories import allow, make_principal  # noqa: PLC0415  # as above

    (agent,) = (role for role in BUILTIN_ROLES if role.name == "agent")
    few = [allow(action, resource) for action, resource in sorted(agent.grants)]
    conditions = parse_conditions({"networks": ["192.0.2.0/24", "2001:db8::/32"], "minimum_level": "standard"})
    many = [
        GrantRule(
            effect=Effect.DENY if number % 4 == 0 else Effect.ALLOW,
            action_pattern="tools.*",
            resource_pattern=f"tool:pack{number}.*",
            conditions=conditions,
        )
        for number in range(MANY_GRANTS - 1)
    ]
    authorizer = PolicyAuthorizer(clock=timezone.now)
    numbers = iter(range(1_000_000_000))

    def make_steps(label: str, grants: Sequence[GrantRule]) -> Iterator[Step]:
        principal = replace(make_principal(grants=grants), remote_address=ADDRESS)
        known = Resource(kind="tool", name="text.count_words")

        def act(resource: Resource) -> bool:
            return authorizer.is_allowed(principal=principal, action="tools.execute", resource=resource)

        for kind, prepare in (
            ("remembered", lambda: [known] * BATCH),
            ("new", lambda: [Resource(kind="tool", name=f"text.tool{next(numbers)}") for _ in range(BATCH)]),
        ):
            yield Step(name=f"policy: {kind}, {label}", prepare=prepare, act=act, is_right=lambda told: told is True)

    return [
        *make_steps(f"{len(few)} grants", few),
        *make_steps(f"{MANY_GRANTS} grants with conditions", [*many, allow("tools.*", "tool:text.*")]),
    ]


def list_limits(redis_url: str) -> list[Step]:
    """Counting a command: against nothing at all, against each account's limit, and against five."""
    from security.domain.limits import UNLIMITED_COMMANDS  # noqa: PLC0415  # Django is set up first
    from security.services import SharedLimiter  # noqa: PLC0415  # as above
    from tests.factories import make_principal  # noqa: PLC0415  # as above

    limiter = SharedLimiter(redis_url=redis_url)
    more = [replace(limiter.default_rule, id=uuid.uuid4(), name=f"limit {number}") for number in range(4)]
    (uncounted, *_) = sorted(UNLIMITED_COMMANDS)

    def make_step(label: str, command: str, principal: Any) -> Step:
        def act(name: str) -> bool:
            if not limiter.try_take(principal=principal, command=name):
                limiter.take_in_thread(principal=principal, command=name)
            return True

        return Step(
            name=f"limits: {label}", prepare=lambda: [command] * BATCH, act=act, is_right=lambda told: told is True
        )

    limited = replace(make_principal(), limits=tuple(more))
    return [
        make_step("none", uncounted, make_principal()),
        make_step("one", "session.ping", make_principal()),
        make_step("five", "session.ping", limited),
    ]


def list_sealing() -> list[Step]:
    """Sealing an answer and opening a command."""
    from security.domain.connection_keys import derive_keys  # noqa: PLC0415  # Django is set up first
    from security.domain.sealing import SealedChannel  # noqa: PLC0415  # as above

    keys = derive_keys(shared_secret=os.urandom(32), transcript_hash=os.urandom(32), key_id="benchmark")
    mirrored = type(keys)(
        key_id=keys.key_id,
        transcript_hash=keys.transcript_hash,
        client_to_server=keys.server_to_client,
        server_to_client=keys.client_to_server,
    )
    head: dict[str, Any] = {
        "message_id": str(uuid.uuid4()),
        "message_type": "command",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "security_level": "high",
    }

    def make_steps(label: str, plaintext: bytes) -> Iterator[Step]:
        sealing, client, server = SealedChannel(keys), SealedChannel(mirrored), SealedChannel(keys)
        yield Step(
            name=f"high: seal {label}",
            prepare=lambda: [plaintext] * BATCH,
            act=lambda given: sealing.seal(**head, plaintext=given),
            is_right=lambda sealed: isinstance(sealed, tuple) and len(sealed[1]) == len(plaintext) + 16,
        )
        yield Step(
            name=f"high: open {label}",
            prepare=lambda: [client.seal(**head, plaintext=plaintext) for _ in range(BATCH)],
            act=lambda given: server.open(**head, sequence=given[0], ciphertext=given[1]),
            is_right=lambda opened: opened == plaintext,
        )

    return [step for label, size in SIZES.items() for step in make_steps(label, os.urandom(size))]


def make_signature_step() -> Step:
    """Verifying a command's signature, with what is kept as evidence and against replay."""
    from protocol.domain.messages import SecurityLevel  # noqa: PLC0415  # Django is set up first
    from protocol.domain.signed import SignedMessage  # noqa: PLC0415  # as above
    from security.domain.command_signatures import SessionVerifier  # noqa: PLC0415  # as above
    from security.domain.signatures import CommandPublicKey, make_key_id, make_lines, sign  # noqa: PLC0415  # as above
    from tests.factories import make_principal  # noqa: PLC0415  # as above

    private_key = Ed25519PrivateKey.generate()
    public_key = private_key.public_key().public_bytes_raw()
    key_id = make_key_id(public_key)
    principal = replace(make_principal(), command_keys=(CommandPublicKey(key_id=key_id, public_key=public_key),))
    session_id, payload = uuid.uuid4(), os.urandom(400)
    verifiers = [SessionVerifier(session_id=session_id)]

    def prepare() -> list[tuple[SignedMessage, datetime]]:
        # A verifier remembers a minute of signatures, at a rate that no session has.
        verifiers[0] = SessionVerifier(session_id=session_id)
        now = datetime.now(UTC)
        timestamp = now.isoformat()
        signed = []
        for _ in range(BATCH):
            message_id = str(uuid.uuid4())
            lines = make_lines(
                session_id=str(session_id),
                message_id=message_id,
                message_type="command",
                timestamp=timestamp,
                security_level="critical",
                payload=payload,
                metadata=b"",
            )
            message = SignedMessage(
                message_id=message_id,
                message_type="command",
                timestamp=timestamp,
                signed_at=now,
                security_level=SecurityLevel.CRITICAL,
                payload=payload,
                metadata=b"",
                signature=sign(data=lines.encode(), key_id=key_id, private_key=private_key),
            )
            signed.append((message, now + timedelta(seconds=1)))
        return signed

    return Step(
        name="critical: verify a signature, 400 B",
        prepare=prepare,
        act=lambda given: verifiers[0].verify(principal=principal, signed=given[0], now=given[1]),
        is_right=lambda evidence: isinstance(evidence, dict) and bool(evidence),
    )


def make_denial_step() -> Step:
    """A source's first denial, until it is on record and may be told."""
    from protocol.ports import Denial, Door  # noqa: PLC0415  # Django is set up first
    from security.models import AuditEvent  # noqa: PLC0415  # as above
    from security.services.denials import DenialRecorder  # noqa: PLC0415  # as above

    recorder, numbers = DenialRecorder(), iter(range(1 << 24))

    def make_denial() -> Denial:
        address = (10 << 24) + next(numbers)
        return Denial(
            code="security.access_denied",
            door=Door.HTTP,
            remote_address=".".join(str(byte) for byte in address.to_bytes(4)),
            principal=None,
            kind="request",
            subject="GET /",
        )

    def act(denial: Denial) -> bool:
        recorder.submit(denial).result()
        return True

    def is_right(told: object) -> bool:
        return told is True and AuditEvent.objects.filter(action="access.deny").exists()

    return Step(
        name="a first denial, on record",
        prepare=lambda: [make_denial() for _ in range(DENIAL_BATCH)],
        act=act,
        is_right=is_right,
    )
