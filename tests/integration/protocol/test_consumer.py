"""The socket's edge in this process, with database and broker: peers that vanish, stop reading, or come in between."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import msgspec
import pytest
from channels.layers import get_channel_layer
from channels_redis.pubsub import RedisPubSubChannelLayer
from django.utils import timezone

from protocol import consumers, middleware, outbox, ports, registry
from protocol.database_threads import get_database_threads
from protocol.domain.messages import Authentication, ResponsePayload, SecurityLevel
from protocol.errors import AuthenticationFailed
from protocol.hub import CHANNEL_SECONDS, Hub, get_hub
from protocol.models import OutboxMessage, Session
from protocol.ports import Principal
from protocol.registry import CommandContext, Deferred, command
from protocol.sessions import SEEN_INTERVAL_SECONDS, end_session
from protocol.wakeups import RiddenEvent, Wakeup, publish
from tests.asgi import ServerSocket, open_socket
from tests.factories import create_service, issue_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey_url")]

T = TypeVar("T")


class Anything(msgspec.Struct, frozen=True):
    """Arguments that are not looked at."""


@pytest.fixture(autouse=True)
async def _end_hub() -> AsyncIterator[None]:
    yield
    await get_hub().stop()
    layer = get_channel_layer()
    assert layer is not None
    await layer.flush()


@pytest.fixture(autouse=True)
def _keep_commands() -> Iterator[None]:
    before = dict(registry._commands)
    yield
    registry._commands.clear()
    registry._commands.update(before)


@pytest.fixture
def key(transactional_db: None) -> str:
    return issue_key(account=create_service()).secret


@pytest.fixture
def limit(settings: Any) -> Iterator[Callable[..., None]]:
    """Set fields of ``settings.MCP`` for this test."""

    def change(**fields: Any) -> None:
        settings.MCP = msgspec.structs.replace(settings.MCP, **fields)
        consumers.get_terms.cache_clear()

    yield change
    consumers.get_terms.cache_clear()


async def ask(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Ask the database, which no coroutine may do itself."""
    return await get_database_threads().run(function, *args, **kwargs)


def list_open_sessions() -> list[uuid.UUID]:
    return list(Session.objects.filter(ended_at=None).values_list("id", flat=True))


async def wait_until(condition: Callable[[], Any], *, what: str) -> None:
    """Return once the condition, a function or coroutine function, holds."""
    async with asyncio.timeout(10):
        while True:
            holds = condition()
            if asyncio.iscoroutine(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


# Coming and going


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [([], None), (["mcp.v1.json"], "mcp.v1.json"), (["chat", "mcp.v1.json", "mcp.v1.msgpack"], "mcp.v1.msgpack")],
)
async def test_the_upgrade_names_what_was_chosen(offered: list[str], accepted: str | None) -> None:
    async with open_socket(subprotocols=offered) as (socket, _):
        assert await socket.receive_raw() == {"type": "websocket.accept", "subprotocol": accepted}


async def test_only_unknown_subprotocols_are_refused_before_the_upgrade() -> None:
    async with open_socket(subprotocols=["chat"], extensions={"websocket.http.response": {}}) as (socket, serving):
        assert (await socket.receive_raw())["status"] == 400
        await serving
    async with open_socket(subprotocols=["chat"]) as (socket, serving):
        assert (await socket.receive_raw())["type"] == "websocket.close"
        await serving


async def test_connections_beyond_the_limit_are_refused_until_one_ends(limit: Callable[..., None]) -> None:
    limit(max_connections=1)
    async with open_socket() as (first, _):
        assert (await first.receive_raw())["type"] == "websocket.accept"
        async with open_socket(extensions={"websocket.http.response": {}}) as (second, serving):
            refused = await second.receive_raw()
            assert refused["status"] == 503
            assert dict(refused["headers"])[b"retry-after"]
            await serving
    async with open_socket() as (third, _):
        assert (await third.receive_raw())["type"] == "websocket.accept"


async def test_a_session_lasts_from_authentication_to_the_end_of_the_socket(key: str) -> None:
    async with open_socket() as (socket, _):
        answer = await socket.authenticate(key)
        assert await ask(list_open_sessions) == [uuid.UUID(answer["session_id"])]
    assert await ask(list_open_sessions) == []
    session = await ask(Session.objects.get)
    assert (session.close_code, session.client_name, session.remote_address) == (1006, "test", "127.0.0.1")


async def test_closing_when_asked(key: str) -> None:
    async with open_socket() as (socket, serving):
        await socket.authenticate(key)
        answer = await socket.receive_answer(socket.send_command("session.close"))
        assert answer["payload"] == {"command": "session.close", "result": {}}
        assert (await socket.receive_raw())["code"] == 1000
        await serving
    assert (await ask(Session.objects.get)).close_code == 1000


class SlowLayer(RedisPubSubChannelLayer):  # type: ignore[misc]  # the library is untyped
    """A channel layer that takes its time until a new channel hears something."""

    def __init__(self, *, seconds: float, **config: Any) -> None:
        super().__init__(**config)
        self._seconds = seconds

    async def new_channel(self, prefix: str = "specific.") -> str:
        await asyncio.sleep(self._seconds)
        return str(await self._get_layer().new_channel(prefix))


@pytest.mark.parametrize(("seconds", "is_in_time"), [(0.3, True), (CHANNEL_SECONDS + 0.2, False)])
async def test_the_first_session_of_a_process_is_woken_as_any_other(
    key: str, settings: Any, seconds: float, is_in_time: bool
) -> None:
    """It comes when the hub has only begun to listen, or cannot listen yet."""
    configured = settings.CHANNEL_LAYERS["default"]
    config = {**configured["CONFIG"], "seconds": seconds}
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.SlowLayer", "CONFIG": config}}

    async def get_channel() -> str:
        return (await ask(Session.objects.get)).channel

    async with open_socket() as (socket, _):
        session_id = uuid.UUID((await socket.authenticate(key))["session_id"])
        assert bool(await get_channel()) is is_in_time
        await wait_until(get_channel, what="the session's channel")
        channel = await get_channel()
        assert channel == get_hub().channel
        event = RiddenEvent(event="test.rode", data={"n": 1}, correlation_id=None)
        await ask(publish, channel=channel, wakeup=Wakeup(session_id=session_id, events=(event,)))
        assert (await socket.receive())["payload"] == {"event": "test.rode", "data": {"n": 1}}


async def test_a_socket_that_never_authenticates_leaves_no_session(limit: Callable[..., None]) -> None:
    limit(handshake_timeout_seconds=0.05, authentication_timeout_seconds=0.05)
    async with open_socket() as (silent, _), open_socket() as (halfway, _):
        await silent.receive_raw()
        await halfway.receive_raw()
        halfway.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}})
        assert (await halfway.receive())["type"] == "handshake"
        for socket in (silent, halfway):
            assert (await socket.receive_raw())["code"] == 4408
    assert await ask(Session.objects.count) == 0


async def test_a_ready_connection_that_says_nothing_is_closed(key: str, limit: Callable[..., None]) -> None:
    limit(heartbeat_interval_seconds=0.1)
    async with open_socket() as (socket, serving):
        await socket.authenticate(key)
        assert (await socket.receive_raw())["code"] == 4408
        await serving
    assert (await ask(Session.objects.get)).close_code == 4408


async def test_a_session_that_was_ended_from_elsewhere_is_closed(key: str) -> None:
    """As after the machine slept: its row is ended as lost, but the socket is still there and would wait for ever."""
    async with open_socket() as (ended, serving), open_socket() as (other, _):
        session_id = uuid.UUID((await ended.authenticate(key))["session_id"])
        await other.authenticate(key)
        await ask(end_session, session_id=session_id, close_code=None)
        # The next quarter of a minute, now.
        get_hub()._last_seen -= SEEN_INTERVAL_SECONDS
        assert (await ended.receive_raw())["code"] == 1011
        await serving
        assert (await other.receive_answer(other.send_command("session.ping")))["type"] == "response"


# What crosses the closing frame


@pytest.mark.parametrize("rest", [1, 3])
async def test_nothing_is_sent_behind_the_closing_frame(rest: int) -> None:
    async with open_socket() as (socket, serving):
        socket.send("handshake", {"protocol_versions": ["9.9"], "client": {"name": "test"}})
        for _ in range(rest):
            socket.send_command("session.ping")
        assert (await socket.receive_raw())["type"] == "websocket.accept"
        assert (await socket.receive())["payload"]["code"] == "protocol.version_unsupported"
        assert (await socket.receive_raw())["code"] == 4406
        await serving


async def test_commands_behind_a_session_close_are_not_answered_behind_the_closing_frame(key: str) -> None:
    async with open_socket() as (socket, serving):
        await socket.authenticate(key)
        socket.send_command("session.close", message_id="close")
        for _ in range(3):
            socket.send_command("tools.list")
        await socket.receive_answer("close")
        assert (await socket.receive_raw())["code"] == 1000
        await serving


def pause_after(step: middleware.Step) -> middleware.Step:
    async def run(row: registry.Command, context: CommandContext, arguments: Any) -> Any:
        result = await step(row, context, arguments)
        await asyncio.sleep(0.05)
        return result

    return run


async def test_the_answer_comes_before_the_closing_frame_also_through_middleware(key: str, settings: Any) -> None:
    settings.MESSAGE_MIDDLEWARE = [f"{__name__}.pause_after"]
    middleware.get_middleware.cache_clear()
    try:
        async with open_socket() as (socket, serving):
            await socket.authenticate(key)
            socket.send_command("session.close")
            assert (await socket.receive())["type"] == "response"
            assert (await socket.receive_raw())["code"] == 1000
            await serving
    finally:
        middleware.get_middleware.cache_clear()


# Credentials that are being judged


class SlowAuthenticator:
    """Judges as the real one does, once it may."""

    def __init__(self, real: ports.Authenticator) -> None:
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()
        self._real = real

    def authenticate(
        self,
        *,
        credentials: Authentication,
        remote_address: str | None,
        security_level: SecurityLevel = SecurityLevel.STANDARD,
    ) -> Principal:
        self.is_asked.set()
        assert self.may_answer.wait(10)
        return self._real.authenticate(
            credentials=credentials, remote_address=remote_address, security_level=security_level
        )

    def get_mark(self) -> int:
        return self._real.get_mark()

    def renew(self, principals: Sequence[Principal]) -> list[Principal | None]:
        return self._real.renew(principals)


@pytest.fixture
def slow() -> Iterator[SlowAuthenticator]:
    real, authorizer = ports.get_authenticator(), ports.get_authorizer()
    made = SlowAuthenticator(real)
    ports.bind(authenticator=made, authorizer=authorizer)
    yield made
    made.may_answer.set()
    ports.bind(authenticator=real, authorizer=authorizer)


async def begin_authentication(socket: ServerSocket, slow: SlowAuthenticator, key: str) -> str:
    await socket.receive_raw()
    await socket.receive_answer(socket.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}}))
    message_id = socket.send("authentication", {"method": "api_key", "key": key})
    await wait_until(slow.is_asked.is_set, what="the judgement")
    return message_id


async def test_a_peer_that_goes_while_it_is_judged_leaves_no_open_session(key: str, slow: SlowAuthenticator) -> None:
    async with open_socket() as (socket, serving):
        await begin_authentication(socket, slow, key)
        socket.lose()
        await asyncio.sleep(0)
        slow.may_answer.set()
        await serving
    assert await ask(list_open_sessions) == []
    assert get_hub().links == set()
    assert get_hub()._by_session == {}


async def test_a_deadline_that_passes_while_it_is_judged_leaves_no_open_session(
    key: str, slow: SlowAuthenticator, limit: Callable[..., None]
) -> None:
    limit(handshake_timeout_seconds=0.05, authentication_timeout_seconds=0.05)
    async with open_socket() as (socket, serving):
        await begin_authentication(socket, slow, key)
        assert (await socket.receive_raw())["code"] == 4408
        slow.may_answer.set()
        await serving
    assert await ask(list_open_sessions) == []
    assert (await ask(Session.objects.get)).close_code == 4408


async def test_only_one_guess_is_judged_at_a_time(key: str, slow: SlowAuthenticator) -> None:
    async with open_socket() as (socket, _):
        first = await begin_authentication(socket, slow, key)
        second = socket.send("authentication", {"method": "api_key", "key": key})
        refused = await socket.receive()
        assert refused["metadata"]["correlation_id"] == second
        assert refused["payload"]["code"] == "security.authentication_failed"
        slow.may_answer.set()
        assert (await socket.receive_answer(first))["type"] == "authentication"
        assert len(await ask(list_open_sessions)) == 1


async def test_commands_do_not_overtake_the_judgement(key: str, slow: SlowAuthenticator) -> None:
    async with open_socket() as (socket, _):
        await begin_authentication(socket, slow, key)
        early = await socket.receive_answer(socket.send_command("session.ping"))
        assert early["payload"]["code"] == "security.authentication_required"
        slow.may_answer.set()


async def test_authenticating_again_is_for_the_same_account_only(key: str) -> None:
    account = await ask(create_service)
    other = (await ask(issue_key, account=account)).secret
    async with open_socket() as (socket, _):
        session_id = (await socket.authenticate(key))["session_id"]
        again = await socket.receive_answer(socket.send("authentication", {"method": "api_key", "key": key}))
        assert again["payload"]["session_id"] == session_id
        refused = await socket.receive_answer(socket.send("authentication", {"method": "api_key", "key": other}))
        assert refused["payload"]["code"] == AuthenticationFailed.code
        assert (await socket.receive_answer(socket.send_command("session.ping")))["type"] == "response"
        assert len(await ask(list_open_sessions)) == 1


async def test_a_key_that_expires_ends_its_commands_and_not_the_connection() -> None:
    account = await ask(create_service)
    issued = await ask(issue_key, account=account, expires_at=timezone.now() + timedelta(seconds=0.4))
    async with open_socket() as (socket, _):
        answer = await socket.authenticate(issued.secret)
        assert answer["expires_at"]

        async def is_expired() -> bool:
            told = await socket.receive_answer(socket.send_command("session.ping"))
            return bool(told["type"] == "error" and told["payload"]["code"] == "security.token_expired")

        await wait_until(is_expired, what="the expiry")
        fresh = (await ask(issue_key, account=account)).secret
        await socket.receive_answer(socket.send("authentication", {"method": "api_key", "key": fresh}))
        assert (await socket.receive_answer(socket.send_command("session.ping")))["type"] == "response"


# Peers that do not read


async def test_a_peer_that_stops_reading_and_goes_is_let_go(key: str) -> None:
    """Events fill the output while one send waits; reading pauses; then the peer is gone."""
    async with open_socket() as (socket, serving):
        await socket.authenticate(key)
        (link,) = get_hub().links
        socket.readable.clear()
        for _ in range(6):
            link.emit("test.big", "x" * 1_000_000, correlation_id=None)
            await asyncio.sleep(0)
        socket.send_command("session.ping")
        await wait_until(lambda: not link.writer._room.is_set(), what="the pause")
        socket.lose()
        await asyncio.wait_for(serving, 5)
    assert get_hub().links == set()
    assert await ask(list_open_sessions) == []


async def test_reading_goes_on_once_the_peer_reads_again(key: str) -> None:
    async with open_socket() as (socket, _):
        await socket.authenticate(key)
        (link,) = get_hub().links
        socket.readable.clear()
        for _ in range(6):
            link.emit("test.big", "x" * 1_000_000, correlation_id=None)
            await asyncio.sleep(0)
        before = link.connection.activity.message_count
        ping = socket.send_command("session.ping")
        after = socket.send_command("session.ping")
        await wait_until(lambda: not link.writer._room.is_set(), what="the pause")
        assert link.connection.activity.message_count == before + 1, "it read on"
        socket.readable.set()
        for message_id in (ping, after):
            assert (await socket.receive_answer(message_id))["type"] == "response"


# Commands


async def test_what_nobody_expected_is_told_by_its_trace_only(key: str, caplog: pytest.LogCaptureFixture) -> None:
    @command("test.fail")
    def fail(context: CommandContext, arguments: Anything) -> None:
        """Fail."""
        raise KeyError("swordfish")

    async with open_socket() as (socket, _):
        await socket.authenticate(key)
        with caplog.at_level(logging.ERROR):
            answer = await socket.receive_answer(socket.send_command("test.fail"))
        assert answer["payload"]["code"] == "system.internal"
        assert "swordfish" not in str(answer)
        assert answer["payload"]["trace_id"] in caplog.text
        assert "swordfish" in caplog.text
        assert (await socket.receive_answer(socket.send_command("session.ping")))["type"] == "response"


@pytest.mark.parametrize("subprotocol", ["mcp.v1.json", "mcp.v1.msgpack"])
async def test_a_result_that_cannot_be_written_is_an_answer_too(key: str, subprotocol: str) -> None:
    @command("test.odd")
    def answer_oddly(context: CommandContext, arguments: Anything) -> object:
        """Something that no encoding has."""
        return {"odd": object()}

    async with open_socket(subprotocols=[subprotocol]) as (socket, _):
        await socket.authenticate(key)
        answer = await socket.receive_answer(socket.send_command("test.odd"))
        assert answer["payload"]["code"] == "system.internal"
        status = await socket.receive_answer(socket.send_command("session.status"))
        assert [entry["command"] for entry in status["payload"]["result"]["pending_commands"]] == ["session.status"]


async def test_the_status_shows_the_connection_as_the_server_sees_it(key: str) -> None:
    release = threading.Event()

    @command("test.wait")
    def wait(context: CommandContext, arguments: Anything) -> None:
        """Wait."""
        release.wait(10)

    async with open_socket() as (socket, _):
        session_id = (await socket.authenticate(key))["session_id"]
        socket.send_command("test.wait", message_id="waiting")
        answer = await socket.receive_answer(socket.send_command("session.status", message_id="status"))
        status = answer["payload"]["result"]
        release.set()
        assert set(status) == {
            "is_connected",
            "state",
            "session_id",
            "last_message_id",
            "message_count",
            "pending_commands",
            "last_activity",
            "latency_ms",
            "error_count",
            "degraded",
        }
        assert (status["is_connected"], status["state"], status["session_id"]) == (True, "ready", session_id)
        assert (status["last_message_id"], status["message_count"], status["error_count"]) == ("status", 4, 0)
        assert [(entry["id"], entry["stage"]) for entry in status["pending_commands"]] == [
            ("waiting", "processing"),
            ("status", "processing"),
        ]
        assert status["degraded"] == []


# Numbered messages


async def follow_nothing(seconds: float) -> None:
    """Only those without a session are answered so."""
    raise AssertionError(seconds)


def defer(commands: dict[str, Callable[[CommandContext], object]]) -> None:
    """Register commands whose answers come through the outbox; their deadline is now, and this is how they expire."""
    for name, expire in commands.items():

        def handle(
            context: CommandContext, arguments: Anything, expire: Callable[[CommandContext], object] = expire
        ) -> Deferred:
            """Answer later."""
            return Deferred(
                deadline=timezone.now() - timedelta(seconds=5), expire=lambda: expire(context), follow=follow_nothing
            )

        command(name)(handle)


def answer_from_elsewhere(context: CommandContext, result: Any = None) -> None:
    """What a worker does, but for the wake-up."""
    assert context.peer.session_id is not None
    outbox.append(
        session_id=context.peer.session_id,
        correlation_id=context.message_id,
        payload=ResponsePayload("test", result),
    )


async def test_an_answer_arrives_although_its_wake_up_was_lost(key: str) -> None:
    defer({"test.later": answer_from_elsewhere})
    async with open_socket() as (socket, _):
        await socket.authenticate(key)
        for number in (1, 2):
            answer = await socket.receive_answer(socket.send_command("test.later"))
            assert answer["metadata"]["sequence"] == number


async def test_one_command_that_cannot_be_ended_holds_up_no_other(key: str) -> None:
    def raise_something(context: CommandContext) -> None:
        raise ValueError

    defer({"test.broken": raise_something, "test.later": answer_from_elsewhere})
    async with open_socket() as (broken, _), open_socket() as (other, _):
        await broken.authenticate(key)
        await other.authenticate(key)
        broken.send_command("test.broken")
        for _ in range(2):
            assert (await other.receive_answer(other.send_command("test.later")))["type"] == "response"


async def test_a_message_that_cannot_be_written_costs_its_own_connection_only(key: str) -> None:
    defer(
        {
            "test.huge": lambda context: answer_from_elsewhere(context, 2**70),
            "test.later": answer_from_elsewhere,
        }
    )
    async with open_socket(subprotocols=["mcp.v1.msgpack"]) as (broken, serving), open_socket() as (other, _):
        await broken.authenticate(key)
        await other.authenticate(key)
        broken.send_command("test.huge")
        assert (await broken.receive_raw())["code"] == 1011
        await serving
        assert (await other.receive_answer(other.send_command("test.later")))["type"] == "response"


async def test_what_the_client_has_is_forgotten(key: str) -> None:
    defer({"test.later": answer_from_elsewhere})
    async with open_socket() as (socket, _):
        await socket.authenticate(key)
        for _ in range(2):
            await socket.receive_answer(socket.send_command("test.later"))
        socket.send("heartbeat", {"ack": 1})

        def list_owed() -> list[int]:
            return list(OutboxMessage.objects.values_list("sequence", flat=True))

        async def is_forgotten() -> bool:
            return await ask(list_owed) == [2]

        await wait_until(is_forgotten, what="the acknowledgement")


# Draining


async def test_a_drain_answers_what_runs_then_closes_everything(key: str) -> None:
    release = threading.Event()

    @command("test.wait")
    def wait(context: CommandContext, arguments: Anything) -> str:
        """Wait."""
        release.wait(10)
        return "done"

    async with open_socket() as (busy, busy_serving), open_socket() as (silent, silent_serving):
        await busy.authenticate(key)
        await silent.receive_raw()
        running = busy.send_command("test.wait")
        await asyncio.sleep(0)
        draining = asyncio.create_task(consumers.drain(timeout_seconds=10))
        event = await busy.receive()
        assert event["payload"]["event"] == "session.draining"
        refused = await busy.receive_answer(busy.send_command("session.ping"))
        assert refused["payload"]["code"] == "system.unavailable"
        async with open_socket(extensions={"websocket.http.response": {}}) as (late, serving):
            assert (await late.receive_raw())["status"] == 503
            await serving
        release.set()
        answer = await busy.receive_answer(running)
        assert answer["payload"]["result"] == "done"
        assert (await busy.receive_raw())["code"] == 1012
        await asyncio.gather(draining, busy_serving, silent_serving)
        assert silent.close_code == 1012
    session = await ask(Session.objects.get)
    assert session.close_code == 1012


async def test_the_hub_stops_whatever_it_is_doing() -> None:
    """Its broker's client loses a cancellation that meets it while it connects."""
    layer = get_channel_layer()
    assert layer is not None
    for steps in range(12):
        hub = Hub()
        hub.start()
        for _ in range(steps):
            await asyncio.sleep(0)
        await asyncio.wait_for(hub.stop(), 5)
        await layer.flush()


async def test_a_drain_does_not_wait_longer_than_it_may(key: str) -> None:
    release = threading.Event()

    @command("test.wait")
    def wait(context: CommandContext, arguments: Anything) -> None:
        """Wait."""
        release.wait(10)

    async with open_socket() as (socket, serving):
        await socket.authenticate(key)
        socket.send_command("test.wait")
        await asyncio.sleep(0)
        await asyncio.wait_for(consumers.drain(timeout_seconds=0.6), 3)
        release.set()
        await serving
        assert socket.close_code == 1012
