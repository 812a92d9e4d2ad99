"""Limits as they are counted: by several processes, on each door, with and without Redis and the database."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import IntegrityError, transaction
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone

from protocol import ports
from protocol.database_threads import get_database_threads
from protocol.errors import RateLimited
from protocol.hub import get_hub
from protocol.ports import StrangersCount
from security import selectors, services
from security.domain.authorization import AccountPrincipal
from security.domain.limits import Counted, LimitRule, Period, Scope
from security.models import Account, AuditEvent, Limit, LimitUsage
from security.selectors import get_account_principal
from security.services.limit_sources import Ask, lease_quota
from security.services.limiting import SharedLimiter
from tests.asgi import ServerSocket, open_socket
from tests.factories import create_operator, create_service, issue_key, make_principal
from tests.services import run_valkey, wait_until

T = TypeVar("T")
RATE_LIMITED = "security.rate_limited"


_started: list[SharedLimiter] = []


@pytest.fixture(autouse=True)
def _end_limiters() -> Iterator[None]:
    selectors.forget_rules()
    yield
    selectors.forget_rules()
    while _started:
        _started.pop().stop()


def start_limiter(redis_url: str | None = None) -> SharedLimiter:
    """As one process has it."""
    _started.append(SharedLimiter(redis_url=redis_url))
    return _started[-1]


def make_rule(amount: int, *, name: str = "rule", period: Period = Period.HOUR, burst: int | None = None) -> LimitRule:
    return LimitRule(
        id=uuid.uuid4(),
        name=name,
        scope=Scope.EACH_ACCOUNT,
        counted=Counted.COMMANDS,
        amount=amount,
        period=period,
        burst=burst or amount,
    )


def make_limited(*rules: LimitRule) -> AccountPrincipal:
    made = make_principal()
    object.__setattr__(made, "limits", rules)
    return made


def copy(principal: AccountPrincipal) -> AccountPrincipal:
    """The same one, as another process has it."""
    made = make_limited(*principal.limits)
    object.__setattr__(made, "id", principal.id)
    return made


def take(limiter: SharedLimiter, principal: AccountPrincipal, *, at_most: int = 1000) -> int:
    """How many commands are let through until one is refused."""
    for number in range(at_most):
        try:
            limiter.take_in_thread(principal=principal, command="session.ping")
        except RateLimited:
            return number
    return at_most


# Counting together


@pytest.mark.parametrize("amount", [1, 2, 7, 31, 64, 1000])
def test_one_process_gets_exactly_the_limit(valkey_url: str, amount: int) -> None:
    assert take(start_limiter(), make_limited(make_rule(amount)), at_most=2 * amount + 5) == amount


def test_processes_share_one_limit_and_unused_chunks_come_back(valkey_url: str) -> None:
    first, second = start_limiter(), start_limiter()
    principal = make_limited(make_rule(640))
    taken = take(first, principal, at_most=100)
    other = copy(principal)
    taken += take(second, other)
    # What the first process held is all that the second one did not get, and it is given back.
    assert 640 - taken <= 30
    wait_until(lambda: take(second, other) > 0 or taken == 640, what="the first process's chunk")
    first._rates.counts.clear()
    assert taken + take(second, other) <= 640


def test_many_threads_never_get_more(valkey_url: str) -> None:
    limiters = [start_limiter() for _ in range(3)]
    principal = make_limited(make_rule(300))
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda number: take(limiters[number % 3], copy(principal), at_most=100), range(6)))
    assert 300 - 3 * 13 <= sum(taken) <= 300


def test_the_tightest_refuses_and_nothing_else_is_counted(valkey_url: str) -> None:
    limiter = start_limiter()
    wide, tight = make_rule(100, name="wide"), make_rule(3, name="tight")
    principal = make_limited(wide, tight)
    assert take(limiter, principal) == 3
    with pytest.raises(RateLimited) as caught:
        limiter.try_take(principal=principal, command="session.ping")
    assert caught.value.details == {"limit": "tight", "counted": "commands", "amount": 3, "period": "hour"}
    assert 1_000_000 < (caught.value.retry_after_ms or 0) <= 1_200_000
    left = copy(principal)
    object.__setattr__(left, "limits", (wide,))
    assert take(limiter, left) == 97


def test_who_is_over_the_limit_may_cancel_and_leave(valkey_url: str) -> None:
    limiter, principal = start_limiter(), make_limited(make_rule(1))
    assert take(limiter, principal) == 1
    assert limiter.try_take(principal=principal, command="command.cancel")
    assert limiter.try_take(principal=principal, command="session.close")


def test_a_bucket_fills_again(valkey_url: str) -> None:
    limiter, principal = start_limiter(), make_limited(make_rule(20, period=Period.SECOND, burst=2))
    assert 2 <= take(limiter, principal, at_most=50) < 50
    wait_until(lambda: take(limiter, principal, at_most=1) == 1, what="a token")


def test_a_process_that_stops_gives_back_what_it_held(valkey_url: str) -> None:
    first, principal = start_limiter(), make_limited(make_rule(320))
    assert take(first, principal, at_most=20) == 20
    first.stop()
    assert take(start_limiter(), copy(principal)) == 300


# Without Redis


@pytest.fixture
def own_valkey(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/valkey.sock"


def test_without_redis_each_process_goes_on_with_its_share_and_settles_up(tmp_path: Path, own_valkey: str) -> None:
    first, second = start_limiter(own_valkey), start_limiter(own_valkey)
    principal = make_limited(make_rule(400))
    other = copy(principal)
    with run_valkey(socket=tmp_path / "valkey.sock", data_dir=tmp_path):
        assert take(first, principal, at_most=40) == take(second, other, at_most=40) == 40
        wait_until(lambda: first._redis.process_count == 2, what="the other process")
    wait_until(first.is_degraded, what="the loss of Redis")
    alone = take(first, principal) + take(second, other)
    # Together what was left, and what both held besides.
    assert 0 < alone <= 400 - 80 + 2 * 18
    with run_valkey(socket=tmp_path / "valkey.sock", data_dir=tmp_path):
        wait_until(lambda: not first.is_degraded() and not second.is_degraded(), what="the return of Redis")
        wait_until(lambda: not any(count.owed for count in first._rates.counts.values()), what="the settling")
        assert take(first, principal) <= 40
    assert take(first, principal, at_most=3) <= 3


def test_who_is_new_without_redis_gets_this_nodes_share(own_valkey: str) -> None:
    limiter = start_limiter(own_valkey)
    assert take(limiter, make_limited(make_rule(50))) == 50 // settings.MCP.web_workers
    assert limiter.is_degraded()


def test_redis_flushed_in_the_middle_is_harmless(tmp_path: Path, own_valkey: str) -> None:
    limiter = start_limiter(own_valkey)
    principal = make_limited(make_rule(100))
    with run_valkey(socket=tmp_path / "valkey.sock", data_dir=tmp_path):
        assert take(limiter, principal, at_most=60) == 60
        redis.Redis.from_url(own_valkey).flushall()
        # The bucket is a new one: at most one more burst.
        assert 40 <= take(limiter, principal) <= 100 + 40
        assert not limiter.is_degraded()


# Quotas


@pytest.mark.django_db
def test_a_quota_is_never_exceeded_and_starts_anew_in_its_next_window() -> None:
    limit = Limit.objects.create(name="runs", amount=10, period="day")
    rule, now = limit.to_rule(), datetime(2026, 6, 1, 12, tzinfo=UTC)

    def lease(wanted: int, *, at: datetime = now, returned: int = 0) -> int:
        return lease_quota(Ask(rule=rule, subject="a", wanted=wanted, returned=returned), now=at).granted

    assert [lease(4), lease(4), lease(4), lease(4)] == [4, 4, 2, 0]
    assert lease(4, returned=3) == 3
    grant = lease_quota(Ask(rule=rule, subject="a", wanted=1), now=now)
    assert (grant.granted, grant.remaining, grant.wait_seconds) == (0, 0, 12 * 3600)
    assert lease(4, at=datetime(2026, 6, 2, tzinfo=UTC)) == 4
    assert LimitUsage.objects.filter(limit=limit).count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_quota_outlives_redis_and_the_process(own_valkey: str) -> None:
    limit = Limit.objects.create(name="commands", amount=40, period="month")
    principal = make_limited(limit.to_rule())
    assert take(start_limiter(own_valkey), principal, at_most=30) == 30
    # Another process, after the first one's sudden end: what that held counts as used, one token at most.
    assert 9 <= take(start_limiter(own_valkey), copy(principal)) <= 10
    assert LimitUsage.objects.get(limit=limit).used == 40


@pytest.mark.django_db
def test_old_windows_are_forgotten() -> None:
    limit = Limit.objects.create(name="runs", amount=10, period="day")
    LimitUsage.objects.create(limit=limit, subject="a", window_start=datetime(2020, 1, 1, tzinfo=UTC).date())
    LimitUsage.objects.create(limit=limit, subject="a", window_start=timezone.now().date())
    assert services.purge_limit_usage() == 1
    assert LimitUsage.objects.count() == 1


# Rows


@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"period": "week"},
        {"period": "day", "burst": 5},
        {"scope": "account"},
        {"counted": "connections"},
    ],
)
def test_the_database_refuses_what_is_no_limit(wrong: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Limit.objects.create(**{"name": "wrong", "amount": 1, **wrong})


@pytest.mark.django_db
def test_a_change_moves_the_mark_and_is_on_record() -> None:
    operator = create_operator()
    before = selectors.get_revocation_mark()
    limit = Limit(name="few", amount=5)
    services.save_limit(limit=limit, principal=get_account_principal(account=operator))
    assert selectors.get_revocation_mark() > before
    services.delete_limit(limit=limit, principal=get_account_principal(account=operator))
    events = AuditEvent.objects.filter(action="limits.change").order_by("id")
    assert [event.outcome for event in events] == ["created", "deleted"]


# On the doors


async def ask(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    return await get_database_threads().run(function, *args, **kwargs)


@pytest.fixture
async def _end_hub() -> AsyncIterator[None]:
    yield
    await get_hub().stop()
    layer = get_channel_layer()
    assert layer is not None
    await layer.flush()


on_sockets = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey_url", "_end_hub")]


def mark(function: Any) -> Any:
    for each in on_sockets:
        function = each(function)
    return function


async def call(socket: ServerSocket, command: str, arguments: Any = None) -> str:
    answer = await socket.receive_answer(socket.send_command(command, arguments))
    return str(answer["payload"].get("code", answer["type"]))


def limit_account(account: Account, **fields: Any) -> Limit:
    return Limit.objects.create(
        scope="account", account=account, **{"name": f"of {account}", "period": "hour", **fields}
    )


@mark
async def test_a_socket_and_http_share_one_limit() -> None:
    key = await ask(issue_key)
    await ask(limit_account, key.api_key.account, amount=4)
    headers = {"Authorization": f"Bearer {key.secret}"}
    http = AsyncClient()
    async with open_socket() as (socket, _):
        await socket.authenticate(key.secret)
        assert await call(socket, "session.ping") == "response"
        answer = await http.get("/api/v1/tools/", headers=headers)
        assert (answer.status_code, answer["RateLimit-Limit"], answer["RateLimit-Remaining"]) == (200, "4", "2")
        assert await call(socket, "session.ping") == "response"
        # What nobody knows costs as much.
        assert await call(socket, "no.such_command") == "protocol.unknown_command"
        assert await call(socket, "session.ping") == RATE_LIMITED
        refused = await http.get("/api/v1/tools/", headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (429, RATE_LIMITED)
        assert refused.json()["details"]["limit"] == f"of {key.api_key.account}"
        assert int(refused["Retry-After"]) >= 1
        batch = await http.post("/api/v1/messages/", [], content_type="application/json", headers=headers)
        assert batch.status_code == 400
        assert await call(socket, "command.cancel", {"id": "m-1"}) == "response"
        assert await call(socket, "session.close") == "response"


@mark
async def test_a_new_limit_reaches_open_connections() -> None:
    key = await ask(issue_key)
    async with open_socket() as (socket, _):
        await socket.authenticate(key.secret)
        assert await call(socket, "session.ping") == "response"
        limit = await ask(limit_account, key.api_key.account, amount=1)
        await wait_for(socket, RATE_LIMITED)
        await ask(limit.delete)
        await wait_for(socket, "response")


async def wait_for(socket: ServerSocket, outcome: str) -> None:
    """Ping until it comes to this."""
    async with asyncio.timeout(5):
        while await call(socket, "session.ping") != outcome:
            pass


@mark
async def test_a_limit_of_a_key_counts_the_tokens_that_came_of_it() -> None:
    key, other = await ask(issue_key), await ask(issue_key)
    await ask(Limit.objects.create, name="key", scope="api_key", api_key=key.api_key, amount=2, period="hour")
    http = AsyncClient()
    answer = await http.post("/api/v1/auth/token/", {"key": key.secret}, content_type="application/json")
    for bearer, status in ((answer.json()["access"], 200), (key.secret, 200), (answer.json()["access"], 429)):
        found = await http.get("/api/v1/tools/", headers={"Authorization": f"Bearer {bearer}"})
        assert found.status_code == status
    found = await http.get("/api/v1/tools/", headers={"Authorization": f"Bearer {other.secret}"})
    assert found.status_code == 200


@mark
async def test_an_account_has_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    key = await ask(issue_key)
    monkeypatch.setattr("protocol.sessions.settings", FewConnections(connections_per_account=1))
    async with open_socket() as (socket, _):
        await socket.authenticate(key.secret)
        async with open_socket() as (second, _):
            await second.receive_raw()
            await second.receive_answer(
                second.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}})
            )
            answer = await second.receive_answer(
                second.send("authentication", {"method": "api_key", "key": key.secret})
            )
            assert (answer["payload"]["code"], answer["payload"]["details"]) == (
                RATE_LIMITED,
                {"limit": "connections_per_account"},
            )
            assert (await second.receive_raw())["code"] == 4429
        await socket.receive_answer(socket.send_command("session.close"))
    async with open_socket() as (third, _):
        await third.authenticate(key.secret)


@mark
@pytest.mark.parametrize(
    ("first", "second", "is_one_more"),
    [
        ("2001:db8:1:1::1", "2001:db8:1:1:ffff::2", True),
        ("2001:db8:1:1::1", "2001:db8:1:2::1", False),
        ("192.0.2.7", "::ffff:192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
async def test_connections_of_all_nodes_are_counted_as_attempts_are(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, *, is_one_more: bool
) -> None:
    key = await ask(issue_key)
    monkeypatch.setattr("protocol.sessions.settings", FewConnections(connections_per_address=1))

    async def show_key(socket: ServerSocket, address: str) -> dict[str, Any]:
        socket.scope["client"] = (address, 50_000)
        await socket.receive_raw()
        await socket.receive_answer(
            socket.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}})
        )
        return await socket.receive_answer(socket.send("authentication", {"method": "api_key", "key": key.secret}))

    async with open_socket() as (one, _):
        assert (await show_key(one, first))["type"] == "authentication"
        async with open_socket() as (another, _):
            answer = await show_key(another, second)
            assert (answer["payload"].get("details") == {"limit": "connections_per_address"}) is is_one_more


class FewConnections:
    """The settings, but for a few."""

    def __init__(self, **values: int) -> None:
        self.MCP = type("Environment", (), {"connections_per_address": 100, "connections_per_account": 100, **values})


@mark
async def test_who_has_not_authenticated_sends_only_so_much() -> None:
    async with open_socket() as (socket, _):
        await socket.receive_raw()
        for _ in range(33):
            socket.send("heartbeat", {"ack": "none"})
        while True:
            sent = await socket.receive_raw()
            if sent["type"] == "websocket.close":
                break
        assert sent["code"] == 4429


def allow_one(monkeypatch: pytest.MonkeyPatch, counted: StrangersCount) -> str:
    """An address from which one of these may come an hour."""
    limiter = ports.get_limiter()
    assert isinstance(limiter, SharedLimiter)
    rule = replace(make_rule(1), scope=Scope.ADDRESS)
    monkeypatch.setitem(limiter._strangers, counted, rule)
    return "192.0.2.7"


@mark
async def test_refused_credentials_are_counted_by_address_on_the_socket_too(monkeypatch: pytest.MonkeyPatch) -> None:
    address = allow_one(monkeypatch, StrangersCount.SIGN_INS)
    codes = []
    for _ in range(3):
        async with open_socket() as (socket, _):
            socket.scope["client"] = (address, 50_000)
            await socket.receive_raw()
            await socket.receive_answer(
                socket.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}})
            )
            answer = await socket.receive_answer(socket.send("authentication", {"method": "api_key", "key": "mcp_x"}))
            codes.append(answer["payload"]["code"])
    assert codes == ["security.authentication_failed", RATE_LIMITED, RATE_LIMITED]


@mark
async def test_an_address_opens_only_so_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    address = allow_one(monkeypatch, StrangersCount.CONNECTIONS)
    async with open_socket() as (socket, _):
        socket.scope["client"] = (address, 50_000)
        assert (await socket.receive_raw())["type"] == "websocket.accept"
    async with open_socket(extensions={"websocket.http.response": {}}) as (socket, serving):
        socket.scope["client"] = (address, 50_000)
        refused = await socket.receive_raw()
        assert refused["status"] == 429
        assert int(dict(refused["headers"])[b"retry-after"]) >= 1
        await socket.receive_raw()
        socket.close_code = 1000
        await serving


# The console


@pytest.mark.django_db
def test_limits_are_set_in_the_console_and_told_on_the_accounts_page(console: Client, valkey_url: str) -> None:
    account = create_service()
    answer = console.post(
        reverse("admin:security_limit_add"),
        {
            "name": "few",
            "is_enabled": "on",
            "scope": "account",
            "account": str(account.id),
            "counted": "commands",
            "pattern": "tools.*",
            "amount": "7",
            "period": "hour",
        },
    )
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    assert Limit.objects.get().account == account
    page = console.get(reverse("admin:security_account_change", args=[account.id])).content.decode()
    assert "few: 7 of 7 commands a hour" in page
    assert "requests: " in page
