"""Every key of the ring is replaced while two web processes serve all kinds of callers: none of them notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from security.domain.key_states import KeyPurpose
from tests.client import open_client, open_session
from tests.e2e.security_codes import SealedClient, make_message
from tests.sealing import from_base64url
from tests.second_factors import Phone
from tests.services import PROJECT_ROOT, Product, run_product, wait_until

pytestmark = pytest.mark.own_web_server

PASSWORD = "a long password of the tests"  # of accounts that only these tests have
PEOPLE = 25
OWED = 30
"""Answers that a sealed session is owed over the rotation."""
ENOUGH = 3
"""How often each kind of caller must have been served before, and again after, before the test goes on."""
PURPOSES = [argument for purpose in KeyPurpose for argument in ("--purpose", purpose.value)]

_MAKE = f"""
import json
from security import services
from security.models import Account
from tests.second_factors import enrol

agent = services.create_account(username="turning", kind=Account.Kind.SERVICE, roles=["agent"])
people = {{}}
for number in range({PEOPLE}):
    name = f"person-{{number}}"
    person = services.create_account(username=name, password={PASSWORD!r}, is_staff=True, roles=["operator"])
    people[name] = enrol(person).secret.hex()
print(json.dumps({{"key": services.issue_api_key(account=agent, name="test").secret, "people": people}}))
"""
_LOOK = """
import json
from security.models import EncryptionKey
from security.services import count_sealed
print(json.dumps([[key.purpose, key.state, count_sealed(key_id=key.id)] for key in EncryptionKey.objects.all()]))
"""
_READ_OWED = """
import json
from protocol.models import OutboxMessage
found = OutboxMessage.objects.filter(session={session!r}).order_by("sequence")
print(json.dumps([[message.sequence, message.key_id, message.payload.decode()] for message in found]))
"""
_LET_WEEKS_PASS = """
from datetime import timedelta
from security.models import EncryptionKey
for key in EncryptionKey.objects.filter(state="retiring"):
    for name in ("created_at", "activates_at", "activated_at", "replaced_at"):
        setattr(key, name, getattr(key, name) - timedelta(days=30))
    key.save()
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product with two web processes, whose rotations wait for a second only."""
    with run_product(
        tmp_path_factory.mktemp("pair") / "var",
        MCP_WEB_WORKERS="2",
        MCP_KEY_WAIT_SECONDS="1",
        MCP_HEARTBEAT_INTERVAL_SECONDS="120",
        MCP_SIGN_INS_PER_MINUTE="1000000",
        MCP_CONNECTIONS_PER_MINUTE="1000000",
    ) as product:
        yield product


def ask(product: Product, script: str) -> Any:
    """What the script prints last, as JSON."""
    done = product.manage("shell", "--no-imports", "-c", script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else None


@dataclass(kw_only=True)
class Load:
    """Callers of all kinds, each of which goes on until all are told to stop; whatever goes wrong at one fails."""

    product: Product
    key: str
    people: dict[str, str]
    """The secrets of the apps of those who sign in, by name, in hexadecimal."""
    served: Counter[str] = field(default_factory=Counter)
    tokens: dict[str, str] = field(default_factory=dict)
    identities: dict[str, bytes] = field(default_factory=dict)
    """The published identity keys, by id."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Have all of them go on meanwhile."""
        kinds: list[Callable[[], Awaitable[None]]] = [
            *[self.call_openly] * 2,
            *[self.call_sealed] * 2,
            self.shake_hands,
            self.call_by_rest,
            self.refresh,
            self.sign_in,
        ]
        async with asyncio.TaskGroup() as tasks:
            for kind in kinds:
                tasks.create_task(kind())  # type: ignore[arg-type]  # each is a coroutine function
            yield
            self.is_over.set()

    async def wait_until_each_was_served(self) -> None:
        """So many times more than so far."""
        kinds = ("open", "sealed", "handshake", "rest", "refresh", "console")
        wanted = {kind: self.served[kind] + ENOUGH for kind in kinds}
        async with asyncio.timeout(60):
            while any(self.served[kind] < count for kind, count in wanted.items()):  # noqa: ASYNC110  # many wake it
                await asyncio.sleep(0.05)

    def open_api(self, key: str | None) -> httpx2.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=self.product.url, headers=headers, timeout=20)

    async def rest(self) -> None:
        """A moment; others use the machine too."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_over.wait(), 0.05)

    # Sockets

    async def call_openly(self) -> None:
        """A session at level standard, by a token that is renewed from time to time."""
        async with open_client(self.product.websocket_url) as client:
            await client.shake_hands()
            while not self.is_over.is_set():
                answer = await client.show(method="jwt", token=self.tokens["access"])
                assert answer.type == "authentication", answer
                for _ in range(10):
                    done = await client.execute("text.count_words", {"text": "a b"})
                    assert done.result["output"]["words"] == 2
                    await client.send("heartbeat", {"ack": done.terminal.sequence})
                    self.served["open"] += 1

    async def call_sealed(self) -> None:
        """A session at level high that lasts."""
        async with open_client(self.product.websocket_url) as client:
            sealed = SealedClient(client, "high")
            await self.come_in(sealed)
            while not self.is_over.is_set():
                done = await count_words(sealed)
                assert done["payload"]["result"]["output"]["words"] == 2, done
                ack = make_message("heartbeat", {"ack": done["metadata"]["sequence"]})
                await client.send_text(sealed.sealing.encode(sealed.sealing.seal(ack)))
                self.served["sealed"] += 1

    async def shake_hands(self) -> None:
        """One sealed connection after the other, each of which checks the server's identity."""
        while not self.is_over.is_set():
            async with open_client(self.product.websocket_url) as client:
                await self.come_in(SealedClient(client, "high"))
            self.served["handshake"] += 1

    async def come_in(self, sealed: SealedClient, **request: Any) -> dict[str, Any]:
        """Shake hands with whom the published keys say it is."""
        told = await sealed.come_in(self.key, **request)
        algorithm, key_id, signature = told["key_agreement"]["signature"].split(":")
        if key_id not in self.identities:
            async with self.open_api(None) as client:
                found = (await client.get(".well-known/mcp-keys.json")).json()["keys"]
            self.identities = {key["kid"]: from_base64url(key["x"]) for key in found if key["purpose"] == "identity"}
        keys = sealed.sealing.keys
        assert keys is not None
        assert algorithm == "ed25519"
        public_key = Ed25519PublicKey.from_public_bytes(self.identities[key_id])
        public_key.verify(from_base64url(signature), keys.transcript_hash)
        return told

    # HTTP

    async def sign_up(self) -> None:
        """The first pair of tokens."""
        async with self.open_api(None) as client:
            self.tokens = (await client.post("api/v1/auth/token/", json={"key": self.key})).json()

    async def call_by_rest(self) -> None:
        async with self.open_api(None) as client:
            while not self.is_over.is_set():
                await self.call_once_by_rest(client, self.tokens["access"])
                self.served["rest"] += 1

    async def call_once_by_rest(self, client: httpx2.AsyncClient, token: str) -> None:
        answer = await client.post(
            "api/v1/tools/text.count_words/execute/?wait=15",
            json={"input": {"text": "a b"}},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 200, answer.text

    async def refresh(self) -> None:
        async with self.open_api(None) as client:
            while not self.is_over.is_set():
                answer = await client.post("api/v1/auth/refresh/", json={"refresh": self.tokens["refresh"]})
                assert answer.status_code == 200, answer.text
                self.tokens = answer.json()
                self.served["refresh"] += 1
                await self.rest()

    async def sign_in(self) -> None:
        """One person after the other comes to the console with password and app."""
        for name, secret in self.people.items():
            if self.is_over.is_set():
                return
            async with self.open_api(None) as client:
                page = "admin/login/"
                await client.get(page)
                for path, values in (
                    (page, {"username": name, "password": PASSWORD}),
                    ("admin/second-factor/sign-in/", {"code": Phone(secret=bytes.fromhex(secret)).show()}),
                ):
                    form = {**values, "csrfmiddlewaretoken": client.cookies["mcp_csrf"]}
                    answer = await client.post(path, data=form, headers={"Referer": f"{self.product.url}{path}"})
                    assert answer.status_code == 302, answer.text
                assert (await client.get("admin/")).status_code == 200
            self.served["console"] += 1
        await self.is_over.wait()


async def count_words(sealed: SealedClient, *, mode: str = "wait") -> dict[str, Any]:
    """The answer to a sealed call."""
    arguments = {"tool": "text.count_words", "input": {"text": "a b"}, "mode": mode}
    command = make_message("command", {"command": "tools.execute", "arguments": arguments})
    answer = await sealed.exchange(command)
    while answer["type"] == "event" or answer["metadata"].get("correlation_id") != command["id"]:
        answer = await sealed.receive()
    assert answer["type"] == "response", answer
    return answer


def look(product: Product) -> dict[str, dict[str, int]]:
    """How many values lie under the keys, by purpose and state."""
    found: dict[str, dict[str, int]] = {}
    for purpose, state, count in ask(product, _LOOK):
        found.setdefault(purpose, {})[state] = count
    return found


def verify_offline(product: Product, folder: Path) -> subprocess.CompletedProcess[str]:
    """Export the audit record and check it with nothing but what is published."""
    exported = product.manage("export_audit", "--output", str(folder / "audit.jsonl"))
    assert exported.returncode == 0, exported.stderr
    return check_export(product, folder / "audit.jsonl", folder / "keys.json")


def check_export(product: Product, path: Path, key_set: Path) -> subprocess.CompletedProcess[str]:
    key_set.write_bytes(product.get(".well-known/mcp-keys.json")[1])
    return subprocess.run(
        [sys.executable, "examples/verify_audit_export.py", str(path), str(key_set)],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def read_logs(product: Product) -> list[str]:
    """What any process complained of that has to do with keys; a busy machine has complaints of its own."""
    paths = (product.data_dir / "log").glob("*.log")
    lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
    return [line for line in lines if " ERROR security." in line or " ERROR protocol." in line or "keyring" in line]


async def test_nobody_notices_that_every_key_is_replaced(pair: Product, tmp_path: Path) -> None:
    made = await asyncio.to_thread(ask, pair, _MAKE)
    load = Load(product=pair, key=made["key"], people=made["people"])
    await load.sign_up()
    before = dict(load.tokens)
    (tmp_path / "before").mkdir()
    assert (await asyncio.to_thread(verify_offline, pair, tmp_path / "before")).returncode == 0
    async with AsyncExitStack() as stack:
        owed = SealedClient(await stack.enter_async_context(open_client(pair.websocket_url)), "high")
        await load.come_in(owed)
        for _ in range(OWED):
            await count_words(owed)
        sealed_before = await asyncio.to_thread(ask, pair, _READ_OWED.format(session=owed.session_id))
        watching = await stack.enter_async_context(open_session(pair.websocket_url, load.key))
        async with load.run():
            await load.wait_until_each_was_served()
            done = await asyncio.to_thread(pair.manage, "rotate_keys", *PURPOSES)
            assert done.returncode == 0, done.stdout + done.stderr
            await load.wait_until_each_was_served()
            keys = await asyncio.to_thread(look, pair)
        await watching.check_usable()
        sealed_after = await asyncio.to_thread(ask, pair, _READ_OWED.format(session=owed.session_id))
        await count_words(owed)
    assert {purpose: sorted(states) for purpose, states in keys.items()} == {
        "at_rest": ["active", "retired"],
        "jwt": ["active", "retiring"],
        "identity": ["active", "retiring"],
        "audit": ["active", "retiring"],
    }
    assert keys["at_rest"]["retired"] == 0
    assert keys["at_rest"]["active"] >= OWED + PEOPLE
    assert len(sealed_before) == OWED
    assert [[sequence, text] for sequence, _, text in sealed_after] == [
        [sequence, text] for sequence, _, text in sealed_before
    ]
    assert {key_id for _, key_id, _ in sealed_after}.isdisjoint({key_id for _, key_id, _ in sealed_before})
    assert len(load.identities) == 2
    # The token of before is still one.
    async with load.open_api(None) as api:
        await load.call_once_by_rest(api, before["access"])
    assert read_logs(pair) == []


def test_what_was_signed_before_verifies_when_the_keys_are_long_retired(pair: Product, tmp_path: Path) -> None:
    old = tmp_path / "old.jsonl"
    assert pair.manage("export_audit", "--output", str(old)).returncode == 0
    assert pair.manage("rotate_keys", "--purpose", "audit").returncode == 0
    ask(pair, _LET_WEEKS_PASS)
    wait_until(
        lambda: all("retiring" not in states for states in look(pair).values()), seconds=60, what="the keys' retirement"
    )
    assert check_export(pair, old, tmp_path / "keys.json").returncode == 0
    (tmp_path / "all").mkdir()
    verified = verify_offline(pair, tmp_path / "all")
    assert verified.returncode == 0, verified.stdout
    published = json.loads(pair.get(".well-known/mcp-keys.json")[1])["keys"]
    assert {key["purpose"] for key in published if key["state"] == "retired"} == {"audit"}
    exported = (tmp_path / "all" / "audit.jsonl").read_text().splitlines()
    heads = [json.loads(line)["head"] for line in exported if '"head"' in line[:10]]
    assert len({head["key_id"] for head in heads}) > 1, "all heads are of one key"
    # Without the retired key it must not pass: that is what the published set is for.
    active = [key for key in published if key["state"] == "active"]
    (tmp_path / "active.json").write_text(json.dumps({"keys": active}))
    command = [sys.executable, "examples/verify_audit_export.py", str(old), str(tmp_path / "active.json")]
    assert subprocess.run(command, cwd=PROJECT_ROOT, check=False, capture_output=True).returncode == 1
