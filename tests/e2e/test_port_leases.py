"""Ports over real sockets and REST: of the running product, on the machine that it runs on."""

from __future__ import annotations

import asyncio
import socket
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from tests.client import Client, Encoding, open_session
from tests.e2e.conftest import Keys
from tests.services import Product, wait_until

ANOTHER = str(uuid.UUID(int=7))
AT_ONCE = 50
LIVE = ["reserved", "active", "draining"]


def open_api(product: Product, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=f"{product.url}api/v1/", headers={"Authorization": f"Bearer {key}"}, timeout=30)


async def allocate(client: Client, **arguments: Any) -> Any:
    return (await client.call("ports.allocate", {"purpose": "tests", **arguments})).result


async def list_states(client: Client, *lease_ids: str) -> set[str]:
    """The states of these leases, as the caller sees them."""
    page = (await client.call("ports.list", {"limit": 200})).result
    return {lease["state"] for lease in page["leases"] if lease["lease_id"] in lease_ids}


@pytest.mark.parametrize("encoding", Encoding)
async def test_a_port_is_leased_used_renewed_and_released(product: Product, keys: Keys, encoding: Encoding) -> None:
    async with open_session(product.websocket_url, keys.agent, encoding=encoding) as client:
        answer = await client.call("ports.allocate", {"purpose": "a server", "ttl_ms": 60_000})
        assert answer.terminal.sequence is not None
        leased = answer.result
        assert leased.keys() == {"port", "lease_id", "expires_at", "host"}
        checked = (await client.call("ports.check", {"port": leased["port"]})).result
        assert (checked["available"], checked["reason"]) == (False, "leased")
        assert checked["lease"]["holder_id"] == client.session_id
        with socket.create_server(("127.0.0.1", leased["port"])):
            renewed = (await client.call("ports.renew", {"lease_id": leased["lease_id"]})).result
            assert renewed["state"] == "active"
            assert renewed["expires_at"] > leased["expires_at"]
        released = (await client.call("ports.release", {"lease_id": leased["lease_id"]})).result
        assert (released["state"], released["end_reason"]) == ("released", "released")
        again = (await client.call("ports.release", {"lease_id": leased["lease_id"]})).result
        assert again == released
        assert (await client.call("ports.renew", {"lease_id": leased["lease_id"]})).code == "transport.lease_not_found"


async def test_fifty_sessions_at_once_never_get_one_port_twice(product: Product, keys: Keys) -> None:
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(open_session(product.websocket_url, key))
            for key in [keys.agent, keys.other] * (AT_ONCE // 2)
        ]
        leased = await asyncio.gather(*(allocate(client, ttl_ms=60_000) for client in clients))
    assert len({each["port"] for each in leased}) == AT_ONCE


def test_fifty_requests_at_once_never_get_one_port_twice(product: Product, keys: Keys) -> None:
    with open_api(product, keys.agent) as mine, open_api(product, keys.other) as others:
        calls = [mine, others] * (AT_ONCE // 2)
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = list(threads.map(lambda api: (api, api.post("ports/", json={"purpose": "tests"})), calls))
        for api, answer in answers:
            assert answer.status_code == 201, answer.text
            assert api.post(f"ports/{answer.json()['lease_id']}/release/").json()["state"] == "released"
    assert len({answer.json()["port"] for _, answer in answers}) == AT_ONCE


async def test_the_end_of_a_session_frees_its_ports(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as watcher:
        async with open_session(product.websocket_url, keys.agent) as client:
            asked = await allocate(client)
            await client.call("session.close")
            await client.wait_closed()
        async with open_session(product.websocket_url, keys.agent) as client:
            dropped = await allocate(client)
            client.socket.transport.abort()
        async with asyncio.timeout(10):
            while await list_states(watcher, asked["lease_id"], dropped["lease_id"]) != {"released"}:  # noqa: ASYNC110  # asked anew each time
                await asyncio.sleep(0.05)


async def test_a_session_that_ends_while_it_asks_keeps_nothing(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        for _ in range(20):
            await client.send_command("ports.allocate", {"purpose": "cut off"})
        session_id = client.session_id
        client.socket.transport.abort()

    async with open_session(product.websocket_url, keys.agent) as watcher:

        async def count() -> int:
            page = await watcher.call("ports.list", {"session": session_id, "state": LIVE})
            return len(page.result["leases"])

        async with asyncio.timeout(10):
            while await count():  # noqa: ASYNC110  # asked anew each time
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("port", [0, -1, 80, 65_535, 65_536, 2**62])
async def test_no_such_port(product: Product, keys: Keys, port: int) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        answer = await client.call("ports.allocate", {"purpose": "tests", "port": port})
        assert answer.code == "transport.port_invalid"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"purpose": ""},
        {"purpose": "x" * 201},
        {"purpose": "x", "ttl_ms": 0},
        {"purpose": "x", "ttl_ms": -1},
        {"purpose": "x", "ttl_ms": 2**62},
        {"purpose": "x", "port": "20000"},
        {"purpose": "x", "port": 20_000.5},
        {"purpose": "x", "more": 1},
    ],
)
async def test_wrong_arguments(product: Product, keys: Keys, arguments: dict[str, Any]) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        assert (await client.call("ports.allocate", arguments)).code == "protocol.invalid_arguments"


async def test_who_may_not(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        leased = await allocate(client)
        for key in (keys.nobody, keys.viewer, keys.reader):
            async with open_session(product.websocket_url, key) as stranger:
                answer = await stranger.call("ports.allocate", {"purpose": "tests"})
                assert answer.code == "security.access_denied"
        async with open_session(product.websocket_url, keys.other) as other:
            for command in ("ports.release", "ports.renew"):
                answer = await other.call(command, {"lease_id": leased["lease_id"]})
                assert answer.code == "transport.lease_not_found"
            assert await list_states(other, leased["lease_id"]) == set()
        async with open_session(product.websocket_url, keys.viewer) as viewer:
            assert await list_states(viewer, leased["lease_id"]) == {"reserved"}


async def test_a_message_that_comes_again_is_the_same_lease(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        key = uuid.uuid4().hex
        first = await client.call("ports.allocate", {"purpose": "tests"}, idempotency_key=key)
        again = await client.call("ports.allocate", {"purpose": "tests"}, idempotency_key=key)
        assert again.result == first.result
        assert again.terminal.payload["duplicate"] is True
        other = await client.call("ports.allocate", {"purpose": "others"}, idempotency_key=key)
        assert other.code == "protocol.duplicate_id"


async def test_an_id_that_was_answered_is_no_other_commands(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        leased = await client.call("ports.allocate", {"purpose": "tests"}, message_id="taken")
        assert leased.terminal.type == "response"
        run = {"tool": "text.count_words", "input": {"text": "a"}, "mode": "queue"}
        assert (await client.call("tools.execute", run, message_id="taken")).code == "protocol.duplicate_id"
        assert (await client.call("tools.execute", run)).terminal.type == "response"


def test_rest_tells_the_same(product: Product, keys: Keys) -> None:
    key = uuid.uuid4().hex
    with open_api(product, keys.agent) as api:
        answer = api.post("ports/", json={"purpose": "tests", "ttl_ms": 60_000}, headers={"Idempotency-Key": key})
        assert answer.status_code == 201, answer.text
        leased = answer.json()
        again = api.post("ports/", json={"purpose": "tests", "ttl_ms": 60_000}, headers={"Idempotency-Key": key})
        assert again.json() == leased
        assert again.headers["Idempotency-Replayed"] == "true"
        taken = api.post("ports/", json={"purpose": "tests", "port": leased["port"]})
        assert (taken.status_code, taken.json()["code"]) == (409, "transport.port_unavailable")
        assert taken.json()["retryable"] is True
        invalid = api.post("ports/", json={"purpose": "tests", "port": 80})
        assert (invalid.status_code, invalid.json()["code"]) == (400, "transport.port_invalid")
        checked = api.get("ports/check/", params={"port": leased["port"]}).json()
        assert (checked["reason"], checked["lease"]["lease_id"]) == ("leased", leased["lease_id"])
        page = api.get("ports/", params={"port": leased["port"], "state": ["reserved", "active"]}).json()
        assert [lease["lease_id"] for lease in page["leases"]] == [leased["lease_id"]]
        renewed = api.post(f"ports/{leased['lease_id']}/renew/", json={"ttl_ms": 120_000}).json()
        assert renewed["expires_at"] > leased["expires_at"]
        assert renewed["holder_kind"] == "account"
        assert api.post(f"ports/{leased['lease_id']}/release/").json()["state"] == "released"
        for act in ("renew", "release"):
            unknown = api.post(f"ports/{ANOTHER}/{act}/")
            assert (unknown.status_code, unknown.json()["code"]) == (404, "transport.lease_not_found")


def test_a_list_is_walked_by_its_links(product: Product, keys: Keys) -> None:
    with open_api(product, keys.other) as api:
        made = [api.post("ports/", json={"purpose": "walk"}).json()["lease_id"] for _ in range(5)]
        found: list[str] = []
        address: str | None = "ports/?limit=2&state=reserved"
        while address is not None:
            page = api.get(address)
            found += [lease["lease_id"] for lease in page.json()["leases"]]
            address = page.links.get("next", {}).get("url")
        for lease_id in made:
            api.post(f"ports/{lease_id}/release/")
    assert [lease_id for lease_id in found if lease_id in made] == made[::-1]


async def test_a_lease_ends_with_its_time(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        leased = await allocate(client, ttl_ms=1_000)
        async with asyncio.timeout(20):
            while await list_states(client, leased["lease_id"]) != {"released"}:  # noqa: ASYNC110  # asked anew each time
                await asyncio.sleep(0.1)


def test_the_port_of_a_tool_is_its_runs(product: Product, keys: Keys) -> None:
    with open_api(product, keys.agent) as api:
        answer = api.post("tools/sample_tools.use_port/execute/?wait=20", json={"input": {}})
        assert answer.status_code == 200, answer.text
        run = answer.json()

        def get_state() -> str:
            page = api.get("ports/", params={"port": run["output"]}).json()
            lease = next(each for each in page["leases"] if each["holder_id"] == run["execution_id"])
            return str(lease["state"])

        wait_until(lambda: get_state() == "released", what="the port's release")
