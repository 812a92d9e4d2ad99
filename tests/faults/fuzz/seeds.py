"""What is valid: a message of every type and command, in the forms that the registry and the documentation give them.

Arguments are made from each command's published types, so that a new command is fuzzed from the day that it is there.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.client import get_timestamp
from tests.docs.pages import list_blocks, list_pages
from tests.sealing import SigningKey, from_base64url
from tests.services import Product

Value = Any
"""What JSON can say."""

_DESCRIBE = """
import json
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from protocol.domain.base64url import encode_base64url
from protocol.registry import get_commands
from security import services
from security.models import Account
from security.selectors import get_account_principal
from protocol.ports import get_authenticator
from protocol.domain.messages import ApiKeyCredentials

account = services.create_account(username="fuzz", kind=Account.Kind.SERVICE, roles=["agent", "operator"])
Account.objects.filter(id=account.id).update(security_level_max="critical")
signing_key = Ed25519PrivateKey.generate()
public_key = encode_base64url(signing_key.public_key().public_bytes_raw())
services.register_command_key(account=account, public_key=public_key, label="fuzz")
key = services.issue_api_key(account=account, name="fuzz", scopes=[], expires_at=None).secret
principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key), remote_address=None)
pair = services.issue_tokens(principal=principal, remote_address=None, trace_id="")
bystander = services.create_account(username="nobodys-name", kind=Account.Kind.SERVICE, roles=["agent"])
print(json.dumps({
    "key": key,
    "bystander": services.issue_api_key(account=bystander, name="fuzz", scopes=[], expires_at=None).secret,
    "token": pair.access,
    "signing_key": encode_base64url(signing_key.private_bytes_raw()),
    "commands": {name: msgspec.json.schema(command.arguments_type) for name, command in get_commands().items()},
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A valid message."""

    kind: str
    value: dict[str, Value]


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """What the mutations begin with."""

    key: str
    """The API key of the account that sends them."""
    token: str
    bystander_key: str
    """Of an account that no message names: the other one may end others' sessions, and by chance does."""
    openings: tuple[Seed, ...]
    """Handshakes and authentications."""
    commands: tuple[Seed, ...]
    others: tuple[Seed, ...]
    """Heartbeats, what only a provider or a server sends, messages of protocol 1.0."""
    runs: tuple[str, ...]
    signing_key: SigningKey
    """The account's registered key."""

    @property
    def every(self) -> tuple[Seed, ...]:
        return self.openings + self.commands + self.others


def read_seeds(product: Product, *, runs: tuple[str, ...] = ()) -> Seeds:
    """Ask the product what it takes; makes the account that sends it."""
    made = product.manage("shell", "--no-imports", "-c", _DESCRIBE)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout.splitlines()[-1])
    chance = random.Random(1)  # noqa: S311  # repeatable, guards nothing
    commands = [
        Seed(kind=name, value=make_command(name, make_arguments(schema, chance, runs)))
        for name, schema in sorted(told["commands"].items())
        for _ in range(3)
    ]
    shown = [
        json.loads(block.text)
        for page in list_pages()
        for block in list_blocks(page)
        if block.note in ("client", "server")
    ]
    commands += [Seed(kind=value["payload"]["command"], value=value) for value in shown if value["type"] == "command"]
    return Seeds(
        key=told["key"],
        token=told["token"],
        bystander_key=told["bystander"],
        signing_key=SigningKey(Ed25519PrivateKey.from_private_bytes(from_base64url(told["signing_key"]))),
        runs=runs,
        openings=tuple(make_openings(told["key"], told["token"])),
        commands=tuple(commands),
        others=(
            *make_others(told["key"]),
            *(Seed(kind=f"shown {value['type']}", value=value) for value in shown if value["type"] != "command"),
        ),
    )


def make_message(message_type: str, payload: Value, **fields: Value) -> dict[str, Value]:
    return {"id": "m-1", "type": message_type, "payload": payload, "timestamp": get_timestamp(), **fields}


def make_command(name: str, arguments: Value) -> dict[str, Value]:
    """A command with everything that may go with it."""
    return make_message(
        "command",
        {"command": name, "arguments": arguments},
        metadata={"priority": "high", "timeout_ms": 5000, "traceparent": "00-ab-cd-01", "x-own": [1, {"a": None}]},
        security={"security_level": "standard", "encryption_info": None, "signature": None, "auth_token": None},
    )


def make_openings(key: str, token: str) -> list[Seed]:
    full = {
        "protocol_versions": ["1.1"],
        "client": {"name": "fuzz", "version": "2"},
        "security_level": "standard",
        "features": ["progress", "batch", "resume", "provider"],
        "compression": ["deflate"],
        "key_agreement": None,
        "resume": None,
        "state_sync": False,
        "max_in_flight": 64,
        "max_message_size": 1_048_576,
        "extensions": {"vendor.thing@1": {"required": False, "more": 1}},
    }
    agreement = {"algorithm": "X25519", "public_key": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    handshakes = [
        {"protocol_versions": ["1.1"], "client": {"name": "fuzz"}},
        full,
        {**full, "security_level": "high", "key_agreement": agreement},
        {**full, "resume": {"session_id": "s", "resume_token": "t", "last_sequence": 4}},
    ]
    credentials = [
        {"method": "api_key", "key": key},
        {"method": "jwt", "token": token},
        {"method": "password", "username": "fuzz-nobody", "password": "never right"},
    ]
    return [
        *(Seed(kind="handshake", value=make_message("handshake", payload)) for payload in handshakes),
        *(Seed(kind="authentication", value=make_message("authentication", payload)) for payload in credentials),
    ]


def make_others(key: str) -> list[Seed]:
    error = {
        "code": "tool.execution_failed",
        "category": "tool",
        "message": "no",
        "retryable": False,
        "retry_after_ms": None,
        "details": {},
        "trace_id": "0" * 32,
    }
    old = {
        "id": "m-1",
        "type_": "Command",
        "payload": {"name": "ping", "parameters": {}},
        "metadata": {"free": ["form", 1]},
        "security": {"security_level": "Standard", "encryption_info": None, "signature": None, "auth_token": key},
        "timestamp": "2026-11-20T16:31:00.123456789Z",
    }
    of_provider = {"command": "tool.invoke", "result": {"output": {"a": 1}}}
    progress = {"event": "tool.progress", "data": {"execution_id": "e", "fraction": 0.5}}
    numbered = {"correlation_id": "m-0", "sequence": 1}
    return [
        Seed(kind="heartbeat", value=make_message("heartbeat", {"ack": 0})),
        Seed(kind="response", value=make_message("response", of_provider, metadata=numbered)),
        Seed(kind="error", value=make_message("error", error, metadata=numbered)),
        Seed(kind="event", value=make_message("event", progress, metadata=numbered)),
        Seed(kind="state_sync", value=make_message("state_sync", {"contexts": [], "subscribe": True})),
        Seed(kind="1.0", value=old),
    ]


KNOWN: dict[str, tuple[Value, ...]] = {
    "tool": ("text.count_words", "sample_tools.echo", "no.such_tool"),
    "input": ({"text": "a b"}, {"value": {"deep": [1]}}, {}),
    "id": ("m-1", "m-2"),
    "mode": ("queue", "wait", "graceful"),
    "purpose": ("tests",),
    "port": (49152, 80),
}
"""Arguments whose types say less than what they mean, by name."""


def make_arguments(
    schema: dict[str, Value],
    chance: random.Random,
    runs: tuple[str, ...],
    *,
    definitions: dict[str, Value] | None = None,
) -> Value:
    """A value that the schema of a command's arguments takes; ``definitions`` holds those that it names."""
    known = {**KNOWN, "execution": runs or ("01a1fa78-65e4-7164-b029-d1f8890d3dfa",)}
    return _Maker(definitions=definitions or schema.get("$defs", {}), chance=chance, known=known).make(schema, "")


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """Makes values of one schema's types."""

    definitions: dict[str, Value]
    chance: random.Random
    known: dict[str, tuple[Value, ...]]

    def make(self, schema: Value, name: str) -> Value:
        """A value of the type, for an argument of this name."""
        if "$ref" in schema:
            return self.make(self.definitions[schema["$ref"].rpartition("/")[2]], name)
        if "anyOf" in schema:
            return self.make(self.chance.choice(schema["anyOf"]), name)
        if "enum" in schema:
            return self.chance.choice(schema["enum"])
        if name in self.known and schema.get("type") != "null":
            return self.chance.choice(self.known[name])
        match schema.get("type"):
            case "object":
                return self._make_object(schema)
            case "array":
                return [self.make(schema.get("items", {}), name) for _ in range(self.chance.randint(0, 2))]
        return self._make_scalar(schema)

    def _make_object(self, schema: Value) -> dict[str, Value]:
        required = set(schema.get("required", ()))
        return {
            key: self.make(part, key)
            for key, part in schema.get("properties", {}).items()
            if key in required or self.chance.random() < 0.5
        }

    def _make_scalar(self, schema: Value) -> Value:
        match schema.get("type"), schema.get("format"):
            case "string", "uuid":
                return "01a1fa78-65e4-7164-b029-d1f8890d3dfa"
            case "string", "date-time":
                return "2026-11-20T16:31:00Z"
            case "string", _:
                return self.chance.choice(("a", "text", "tools.view", "127.0.0.1"))
            case "integer", _:
                least = schema.get("minimum", 0)
                return self.chance.randint(least, min(schema.get("maximum", least + 50), least + 50))
            case "number", _:
                return 0.5
            case "boolean", _:
                return self.chance.random() < 0.5
            case "null", _:
                return None
        return {"any": 1}
