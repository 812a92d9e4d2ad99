"""The protocol over a real socket: what is refused and how, what a peer that misbehaves costs, and whom."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.client import Client, Encoding, get_timestamp, open_client, open_session
from tests.e2e.conftest import Keys, find_web, read_log
from tests.services import Product, wait_until

MEBIBYTE = 1 << 20
FRAME_BYTES = 20 * MEBIBYTE
both_encodings = pytest.mark.parametrize("encoding", Encoding)


@pytest.fixture
async def client(product: Product, keys: Keys) -> AsyncIterator[Client]:
    """An agent over JSON."""
    async with open_session(product.websocket_url, keys.agent) as client:
        yield client


@pytest.fixture
async def packed(product: Product, keys: Keys) -> AsyncIterator[Client]:
    """An agent over MessagePack."""
    async with open_session(product.websocket_url, keys.agent, encoding=Encoding.MESSAGEPACK) as client:
        yield client


def make_ping(**fields: Any) -> dict[str, Any]:
    payload = {"command": "session.ping", "arguments": {}}
    return {"id": "bad", "type": "command", "payload": payload, "timestamp": get_timestamp(), **fields}


def make_command(command: str, arguments: Any) -> dict[str, Any]:
    return make_ping(payload={"command": command, "arguments": arguments})


def make_call(tool: str, input_value: Any, **arguments: Any) -> dict[str, Any]:
    return make_command("tools.execute", {"tool": tool, "input": input_value, **arguments})


def nest(depth: int) -> str:
    return "[" * depth + "]" * depth


COUNT = "text.count_words"

# The message as a value, the code of its answer, and details.path where there must be one.
BAD_MESSAGES: dict[str, tuple[Any, str, str | None]] = {
    "an id of a wrong type": (make_ping(id=1), "protocol.invalid_message", "id"),
    "a type of a wrong type": (make_ping(type=[]), "protocol.invalid_message", "type"),
    "an unknown type": (make_ping(type="order"), "protocol.invalid_message", "type"),
    "a timestamp of a wrong type": (make_ping(timestamp=5), "protocol.invalid_message", "timestamp"),
    "an unknown field": (make_ping(colour="red"), "protocol.invalid_message", None),
    "an unknown field of security": (make_ping(security={"x": 1}), "protocol.invalid_message", "security"),
    "a token on a socket": (make_ping(security={"auth_token": "t"}), "protocol.invalid_message", "security.auth_token"),
    "unknown metadata": (make_ping(metadata={"hurry": True}), "protocol.invalid_metadata", "metadata.hurry"),
    "metadata of a wrong type": (make_ping(metadata={"priority": 1}), "protocol.invalid_metadata", "metadata.priority"),
    "a payload of a wrong type": (make_ping(payload=7), "protocol.invalid_payload", "payload"),
    "an unknown field of the payload": (make_ping(payload={"command": "x", "y": 1}), "protocol.invalid_payload", None),
    "a type that only servers send": (make_ping(type="response"), "protocol.unsupported_type", None),
    "a handshake again": (
        make_ping(type="handshake", payload={"protocol_versions": ["1.1"], "client": {"name": "t"}}),
        "protocol.unexpected_message",
        None,
    ),
    "an array": ([make_ping()], "protocol.feature_not_agreed", None),
    "an unknown command": (make_command("session.dance", {}), "protocol.unknown_command", None),
    "a method of Python's": (make_command("__class__", {}), "protocol.unknown_command", None),
    "an unknown argument": (make_command("tools.list", {"colour": "red"}), "protocol.invalid_arguments", "arguments"),
    "an argument of a wrong type": (
        make_command("tools.list", {"limit": "5"}),
        "protocol.invalid_arguments",
        "arguments.limit",
    ),
    "an argument out of bounds": (
        make_command("tools.list", {"limit": 201}),
        "protocol.invalid_arguments",
        "arguments.limit",
    ),
    "a missing argument": (make_command("tools.describe", {}), "protocol.invalid_arguments", "arguments"),
    "an execution that is no id": (
        make_command("executions.get", {"execution": "5"}),
        "protocol.invalid_arguments",
        "arguments.execution",
    ),
    "an unknown tool": (make_call("no.such", {}), "tool.not_found", None),
    "an unknown version": (make_call(COUNT, {"text": ""}, version="9.9.9"), "tool.not_found", None),
    "an input against the schema": (make_call(COUNT, {"text": 1}), "tool.invalid_input", "/text"),
    "an input without what is needed": (make_call(COUNT, {}), "tool.invalid_input", ""),
    "an unknown input": (make_call(COUNT, {"text": "", "x": 1}), "tool.invalid_input", ""),
    "an input that is no object": (make_call(COUNT, []), "protocol.invalid_arguments", "arguments.input"),
    "an integer that JSON's readers disagree on": (
        make_call("sample_tools.echo", {"value": 2**53}),
        "tool.invalid_input",
        None,
    ),
    "what is not built yet": (
        make_call(COUNT, {"text": ""}, dry_run=True),
        "protocol.feature_not_agreed",
        "arguments.dry_run",
    ),
}
UNCORRELATED = {"an id of a wrong type", "an array"}


@both_encodings
@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_a_bad_message_is_answered_and_the_connection_stays_usable(
    client: Client, packed: Client, encoding: Encoding, name: str
) -> None:
    value, code, path = BAD_MESSAGES[name]
    used = client if encoding is Encoding.JSON else packed
    await used.send_value(value)
    answer = await used.receive()
    assert answer.code == code
    assert answer.correlation_id == (None if name in UNCORRELATED else "bad")
    if path is not None:
        assert answer.details["path"] == path
    await used.check_usable()


BAD_FRAMES: dict[str, tuple[Encoding, str | bytes, str]] = {
    "not JSON": (Encoding.JSON, "hello", "protocol.invalid_message"),
    "nothing": (Encoding.JSON, "", "protocol.invalid_message"),
    "a number": (Encoding.JSON, "5", "protocol.invalid_message"),
    "half a message": (Encoding.JSON, json.dumps(make_ping())[:-5], "protocol.invalid_message"),
    "two messages": (Encoding.JSON, json.dumps(make_ping()) * 2, "protocol.invalid_message"),
    "ten thousand levels": (Encoding.JSON, nest(10_000), "protocol.feature_not_agreed"),
    "ten thousand levels in a message": (
        Encoding.JSON,
        json.dumps(make_ping(payload="here")).replace('"here"', nest(10_000)),
        "protocol.invalid_message",
    ),
    "ten thousand levels never closed": (Encoding.JSON, '{"a":' * 10_000, "protocol.invalid_message"),
    "sixty-five levels": (
        Encoding.JSON,
        json.dumps(make_call("sample_tools.echo", {"value": "here"})).replace('"here"', nest(61)),
        "protocol.invalid_message",
    ),
    "a megabyte of openers": (Encoding.JSON, "[" * (MEBIBYTE - 1), "protocol.feature_not_agreed"),
    "a megabyte of quotes": (Encoding.JSON, '{"' * (MEBIBYTE // 2 - 1), "protocol.invalid_message"),
    "bytes on a text connection": (Encoding.JSON, json.dumps(make_ping()).encode(), "transport.frame_invalid"),
    "text on a binary connection": (Encoding.MESSAGEPACK, json.dumps(make_ping()), "transport.frame_invalid"),
    "no MessagePack": (Encoding.MESSAGEPACK, b"\xc1", "protocol.invalid_message"),
    "no bytes": (Encoding.MESSAGEPACK, b"", "protocol.invalid_message"),
    "half a MessagePack message": (
        Encoding.MESSAGEPACK,
        msgspec.msgpack.encode(make_ping())[:-5],
        "protocol.invalid_message",
    ),
    "an array that promises four milliard": (
        Encoding.MESSAGEPACK,
        b"\xdd\xff\xff\xff\xff",
        "protocol.feature_not_agreed",
    ),
    "ten thousand levels of MessagePack": (
        Encoding.MESSAGEPACK,
        b"\x81\xa1a" + b"\x91" * 10_000 + b"\x00",
        "protocol.invalid_message",
    ),
    "bad text in an id": (
        Encoding.MESSAGEPACK,
        msgspec.msgpack.encode(make_ping()).replace(b"\xa3bad", b"\xa3b\xffd"),
        "protocol.invalid_message",
    ),
    "bad text in a command": (
        Encoding.MESSAGEPACK,
        msgspec.msgpack.encode(make_ping()).replace(b"session.ping", b"session.\xff\xff\xff\xff"),
        "protocol.invalid_payload",
    ),
    "bad text in arguments": (
        Encoding.MESSAGEPACK,
        msgspec.msgpack.encode(make_call("none", {"text": "here"})).replace(b"here", b"\xff\xff\xff\xff"),
        "protocol.invalid_arguments",
    ),
    "bytes where JSON has none": (
        Encoding.MESSAGEPACK,
        msgspec.msgpack.encode(make_call("sample_tools.echo", {"value": b"x"})),
        "tool.invalid_input",
    ),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_is_answered_and_the_connection_stays_usable(
    client: Client, packed: Client, name: str
) -> None:
    encoding, frame, code = BAD_FRAMES[name]
    used = client if encoding is Encoding.JSON else packed
    if isinstance(frame, str):
        await used.send_text(frame)
    else:
        await used.send_binary(frame)
    assert (await used.receive()).code == code
    await used.check_usable()


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe\xfd", b'{"id": "\xc3\x28"}', b"\xed\xa0\x80", json.dumps(make_ping()).encode() + b"\x80"],
    ids=["nonsense", "a broken character", "a surrogate", "one byte too many"],
)
async def test_text_that_is_not_utf_8_is_answered_and_the_connection_stays_usable(client: Client, text: bytes) -> None:
    await client.send_text(text)
    assert (await client.receive()).code == "protocol.invalid_message"
    await client.check_usable()


@both_encodings
async def test_foreign_metadata_passes(client: Client, packed: Client, encoding: Encoding) -> None:
    used = client if encoding is Encoding.JSON else packed
    metadata: dict[str, Any] = {"x-trace": {"a": [1]}, "x-": None, "priority": "low"}
    message_id = await used.send_command("session.ping", **metadata)
    assert (await used.wait_for_answer(message_id)).result["server_time"]


@both_encodings
async def test_what_is_refused_before_authentication(product: Product, encoding: Encoding) -> None:
    async with open_client(product.websocket_url, encoding=encoding) as client:
        for step, codes in (
            ("nothing", ("security.authentication_required", "protocol.unexpected_message")),
            ("shaken hands", ("security.authentication_required", "protocol.unexpected_message")),
        ):
            if step == "shaken hands":
                assert (await client.shake_hands()).type == "handshake"
            await client.send_command("session.ping")
            assert (await client.receive()).code == codes[0]
            await client.send("state_sync", {})
            assert (await client.receive()).code == codes[1]
        answer = await client.authenticate(product.agent_api_key)
        assert answer.type == "authentication"
        await client.check_usable()


@both_encodings
@pytest.mark.parametrize("key", ["", "mcp_", "mcp_" + "A" * 43, "x" * 512, "ключ"])
async def test_a_wrong_key_is_refused_and_a_right_one_still_taken(
    product: Product, encoding: Encoding, key: str
) -> None:
    async with open_client(product.websocket_url, encoding=encoding) as client:
        await client.shake_hands()
        refused = await client.authenticate(key)
        assert refused.code == "security.authentication_failed"
        assert refused.details == {}
        assert (await client.authenticate(product.agent_api_key)).type == "authentication"
        await client.check_usable()
    if key:
        # A key that is no more than the prefix stands in every path of a traceback.
        assert len(key) < 8 or key not in read_log(product, "web.1")


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"method": "api_key"}, "protocol.invalid_payload"),
        ({"method": "api_key", "key": "x" * 513}, "protocol.invalid_payload"),
        ({"method": "api_key", "key": "k", "more": 1}, "protocol.invalid_payload"),
        ({"method": "password", "username": "u"}, "protocol.invalid_payload"),
        ({"method": "jwt", "key": "k"}, "protocol.invalid_payload"),
        ({"method": "jwt", "token": "t"}, "security.authentication_failed"),
        ({"method": "charm"}, "protocol.invalid_payload"),
        ({}, "protocol.invalid_payload"),
    ],
)
async def test_credentials_of_the_wrong_form_are_refused(product: Product, payload: Any, code: str) -> None:
    async with open_client(product.websocket_url) as client:
        await client.shake_hands()
        assert (await client.wait_for_reply(await client.send("authentication", payload))).code == code


async def test_the_authentication_answer_says_who_one_is(product: Product, keys: Keys) -> None:
    async with open_client(product.websocket_url) as client:
        await client.shake_hands()
        payload = (await client.authenticate(keys.agent)).payload
    assert payload["authenticated"] is True
    assert payload["resumed"] is False
    assert payload["principal"] == {"id": payload["principal"]["id"], "name": "tests-agent", "roles": ["agent"]}
    assert len(payload["handshake_sha256"]) == 64


# What an account may not do


async def test_an_account_without_roles_is_told_nothing(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.nobody) as client:
        for command, arguments in (
            ("tools.list", {}),
            ("tools.describe", {"tool": COUNT}),
            ("tools.execute", {"tool": COUNT, "input": {"text": ""}}),
            ("executions.get", {"execution": "0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10"}),
        ):
            answer = await client.call(command, arguments)
            assert answer.code == "security.access_denied", command
        await client.check_usable()


@pytest.mark.parametrize("account", ["viewer", "reader"])
async def test_who_only_sees_cannot_run(product: Product, keys: Keys, account: str) -> None:
    async with open_session(product.websocket_url, getattr(keys, account)) as client:
        listed = await client.call("tools.list", {"limit": 200})
        assert COUNT in {found["name"] for found in listed.result["tools"]}
        assert (await client.call("tools.describe", {"tool": COUNT})).result["name"] == COUNT
        assert (await client.execute(COUNT, {"text": ""})).code == "security.access_denied"
        # Whether there is such a tool is not told either.
        assert (await client.execute("no.such", {})).code == "security.access_denied"
        await client.check_usable()


# The upgrade


@pytest.mark.parametrize("offered", [["chat"], ["mcp.v2.json", "mcp"], ["MCP.V1.JSON"]])
async def test_only_unknown_subprotocols_are_refused_before_the_upgrade(product: Product, offered: list[str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(product.websocket_url, subprotocols=[Subprotocol(name) for name in offered])
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize("path", ["elsewhere/", "ws", "ws/more/"])
async def test_another_path_is_not_found_and_no_fault_of_the_server(product: Product, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(product.websocket_url.replace("ws/", path))
    assert refused.value.response.status_code == 404
    log = read_log(product, "web.1")
    assert "Traceback" not in log
    assert "without completing handshake" not in log


async def test_a_client_that_offers_nothing_gets_json(product: Product) -> None:
    async with connect(product.websocket_url) as bare:
        assert bare.subprotocol is None
        await bare.send("nonsense")
        answer = await asyncio.wait_for(bare.recv(), 10)
        assert json.loads(answer)["payload"]["code"] == "protocol.invalid_message"


async def test_of_several_known_ones_messagepack_is_chosen(product: Product) -> None:
    offered = [Subprotocol(name) for name in ("chat", "mcp.v1.json", "mcp.v1.msgpack")]
    async with connect(product.websocket_url, subprotocols=offered) as found:
        assert found.subprotocol == "mcp.v1.msgpack"


async def test_no_common_version_closes_with_4406_whatever_follows(product: Product) -> None:
    async with open_client(product.websocket_url) as client:
        payload = {"protocol_versions": ["1.0"], "client": {"name": "old"}}
        # All of it in one go, so that the rest is read before the close is out.
        for message_type in ("handshake", "handshake", "heartbeat"):
            await client.send(message_type, payload)
        assert (await client.receive()).code == "protocol.version_unsupported"
        assert await client.wait_closed() == 4406
    assert "Traceback" not in read_log(product, "web.1")


async def test_closing_when_asked(product: Product, keys: Keys) -> None:
    async with open_session(product.websocket_url, keys.agent) as client:
        assert (await client.call("session.close")).result == {}
        assert await client.wait_closed() == 1000


# Peers that are too much


class Watch:
    """Pings of somebody else, and the web process's memory, while something happens."""

    def __init__(self, client: Client, web: psutil.Process) -> None:
        self.slowest_seconds = 0.0
        self.grown_bytes = 0
        self._client = client
        self._web = web
        self._before = web.memory_info().rss

    async def watch(self) -> None:
        while True:
            started = time.monotonic()
            await self._client.check_usable()
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
            self.grown_bytes = max(self.grown_bytes, self._web.memory_info().rss - self._before)
            await asyncio.sleep(0.005)


class RawPeer:
    """A WebSocket by hand, for what a library does not do: frames of any size and opcode, and not reading."""

    def __init__(self, url: str, *, receive_buffer_bytes: int | None = None) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self.connection = socket.socket()
        if receive_buffer_bytes is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.connection.settimeout(30)
        self.connection.connect((address.hostname, address.port or 80))
        self.connection.sendall(
            b"GET /ws/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Sec-WebSocket-Protocol: mcp.v1.json\r\n\r\n"
        )
        self._stream = self.connection.makefile("rb")
        while self._stream.readline().strip():
            pass

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self.connection.close()

    def send_frame(self, payload: bytes, *, opcode: int = 1, is_last: bool = True) -> None:
        """Send a frame, its mask all zeros."""
        size = len(payload)
        head = bytes([opcode | (0x80 if is_last else 0)])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 1 << 16:
            head += b"\xfe" + size.to_bytes(2, "big")
        else:
            head += b"\xff" + size.to_bytes(8, "big")
        self.connection.sendall(head + b"\0\0\0\0" + payload)

    def send(self, message_type: str, payload: Any) -> None:
        """Send a message as JSON."""
        message = {"id": secrets.token_hex(8), "type": message_type, "payload": payload, "timestamp": get_timestamp()}
        self.send_frame(json.dumps(message).encode())

    def read_close_code(self) -> int | None:
        """Read on until the closing frame; ``None`` where the connection ends without."""
        while head := self._stream.read(2):
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(self._stream.read(2), "big")
            payload = self._stream.read(size)
            if head[0] & 0x0F == 8:
                return int.from_bytes(payload[:2], "big")
        return None


def send_whole(peer: RawPeer) -> None:
    peer.send_frame(b" " * FRAME_BYTES)


def send_fragments(peer: RawPeer) -> None:
    for number in range(0, FRAME_BYTES, MEBIBYTE // 2):
        peer.send_frame(b" " * (MEBIBYTE // 2), opcode=0 if number else 1, is_last=False)


@pytest.mark.parametrize("send", [send_whole, send_fragments], ids=["in one frame", "in fragments"])
async def test_a_frame_of_20_megabytes_is_closed_with_1009_and_costs_nobody_else(
    product: Product, client: Client, send: Callable[[RawPeer], None]
) -> None:
    def send_too_much() -> int | None:
        with RawPeer(product.websocket_url) as peer:
            send(peer)
            return peer.read_close_code()

    watch = Watch(client, find_web(product))
    watching = asyncio.create_task(watch.watch())
    close_codes = await asyncio.gather(*(asyncio.to_thread(send_too_much) for _ in range(3)))
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert close_codes == [1009] * 3
    assert watch.slowest_seconds < 2
    assert watch.grown_bytes < 8 * MEBIBYTE
    await client.check_usable()


async def test_a_message_of_just_the_limit_is_taken(client: Client) -> None:
    call = json.dumps(make_call(COUNT, {"text": ""}))
    text = call.replace('"text": ""', '"text": "' + "x" * (MEBIBYTE - len(call)) + '"')
    assert len(text) == MEBIBYTE
    await client.send_text(text)
    answer = await client.wait_for_answer("bad")
    assert answer.result["output"]["characters"] == MEBIBYTE - len(call)


class DeafPeer:
    """A peer that sends and sends and never reads, on a thread of its own: it takes a while until it is cut off."""

    def __init__(self, url: str, key: str) -> None:
        self.cut_off_after: float | None = None
        """Seconds; ``None``: it was not yet."""
        self._url = url
        self._key = key
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        with RawPeer(self._url, receive_buffer_bytes=4096) as peer:
            peer.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "deaf"}})
            peer.send("authentication", {"method": "api_key", "key": self._key})
            started = time.monotonic()
            try:
                while True:
                    # Most are refused, as they come before it is authenticated or while others are in flight.
                    peer.send("command", {"command": "tools.list", "arguments": {}})
            except OSError:
                self.cut_off_after = time.monotonic() - started


@pytest.fixture(scope="module")
def deaf_peer(product: Product, keys: Keys) -> DeafPeer:
    """Begun when it is first asked for; see the last test of this module."""
    return DeafPeer(product.websocket_url, keys.other)


@pytest.mark.usefixtures("deaf_peer")
async def test_a_peer_that_does_not_read_holds_nobody_up(client: Client) -> None:
    for _ in range(20):
        await client.check_usable()


# Peers that go, or never really come


def count_open_sessions(product: Product) -> int:
    code = "from protocol.models import Session; print(Session.objects.filter(ended_at=None).count())"
    counted = product.manage("shell", "--no-imports", "-c", code)
    assert counted.returncode == 0, counted.stderr
    return int(counted.stdout.splitlines()[-1])


async def connect_and_drop(product: Product, key: str, *, count: int) -> None:
    """So many connections, every other one authenticated, that vanish without a word."""

    async def come_and_go(number: int) -> None:
        async with open_client(product.websocket_url) as client:
            if number % 4:
                await client.shake_hands()
            if number % 4 > 1:
                # The last ones go while they are judged.
                await client.send("authentication", {"method": "api_key", "key": key})
                if number % 4 == 2:
                    await client.receive()
            client.socket.transport.abort()

    for start in range(0, count, 40):
        await asyncio.gather(*(come_and_go(number) for number in range(start, min(start + 40, count))))


async def test_200_connections_that_drop_leave_nothing_behind(product: Product, keys: Keys) -> None:
    web = find_web(product)
    await connect_and_drop(product, keys.agent, count=40)
    sessions_before = count_open_sessions(product)
    descriptors_before, memory_before = web.num_fds(), web.memory_info().rss
    await connect_and_drop(product, keys.agent, count=200)
    await asyncio.to_thread(
        wait_until, lambda: web.num_fds() <= descriptors_before + 2, seconds=10, what="the sockets' end"
    )
    await asyncio.to_thread(
        wait_until,
        lambda: count_open_sessions(product) <= sessions_before,
        seconds=15,
        what="the sessions' end",
    )
    assert web.memory_info().rss - memory_before < 12 * MEBIBYTE
    assert "Traceback" not in read_log(product, "web.1")


async def test_50_connections_that_never_authenticate_are_gone_after_the_deadline(impatient: Product) -> None:
    web = find_web(impatient)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(open_client(impatient.websocket_url)) for _ in range(50)]
        for client in opened[::2]:
            await client.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}})
        codes = await asyncio.gather(*(client.wait_closed() for client in opened))
        assert set(codes) == {4408}

    def count_connections() -> int:
        return sum(found.status == psutil.CONN_ESTABLISHED for found in web.net_connections("tcp"))

    await asyncio.to_thread(wait_until, lambda: count_connections() == 0, what="the sockets' end")


async def test_a_connection_without_heartbeats_is_closed_and_one_with_them_stays(impatient: Product) -> None:
    key = impatient.agent_api_key
    async with (
        open_session(impatient.websocket_url, key) as silent,
        open_session(impatient.websocket_url, key) as alive,
        alive.kept_alive(),
    ):
        assert await silent.wait_closed() == 4408
        beat = await alive.wait_for_reply(await alive.send("heartbeat", {"ack": 0}))
        assert beat.type == "heartbeat"
        assert set(beat.payload) == {"server_time", "ack"}
        await alive.check_usable()


# At the end of the module, since it takes its time while the others run.


async def test_a_peer_that_does_not_read_is_cut_off(product: Product, deaf_peer: DeafPeer, client: Client) -> None:
    await asyncio.to_thread(deaf_peer.join, 25)
    assert deaf_peer.cut_off_after is not None, "it is still connected"
    assert deaf_peer.cut_off_after < 20
    await client.check_usable()
