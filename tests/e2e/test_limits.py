"""Limits on the running product: two web processes and both doors count together, with and without Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import redis

from mcp_site.settings.secrets import generate_secret_key
from security.domain.master_keys import generate_master_key
from tests.client import open_session
from tests.e2e.conftest import Keys, make_keys
from tests.services import Product, run_product, run_valkey, wait_until

pytestmark = [pytest.mark.xdist_group("limits"), pytest.mark.own_web_server]

AMOUNT = 200
HELD = 2 * 9
"""What two processes hold at most of it: half a chunk of 6, and the next."""
SET_LIMIT = f"""
from security.models import Account, Limit
for name in ("tests-agent", "tests-other"):
    account = Account.objects.get(username=name)
    Limit.objects.create(name=name, scope="account", account=account, amount={AMOUNT}, period="hour")
Limit.objects.create(name="words", scope="each_account", counted="runs", pattern="text.*", amount=3, period="day")
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ExitStack]]:
    """The folder of a Valkey that tests may stop, and what is to be closed for that."""
    folder = tmp_path_factory.mktemp("limits")
    with ExitStack() as running:
        running.enter_context(run_valkey(socket=folder / "broker.sock", data_dir=folder))
        yield folder, running


@pytest.fixture(scope="module")
def pair(broker: tuple[Path, ExitStack]) -> Iterator[Product]:
    """A product with two web processes."""
    folder, _ = broker
    with run_product(
        folder / "var",
        REDIS_URL=f"unix://{folder / 'broker.sock'}",
        MCP_SECRET_KEY=generate_secret_key(),
        MCP_MASTER_KEY=generate_master_key(),
        MCP_WEB_WORKERS="2",
    ) as product:
        yield product


@pytest.fixture(scope="module")
def limited(pair: Product) -> Keys:
    keys = make_keys(pair)
    made = pair.manage("shell", "--no-imports", "-c", SET_LIMIT)
    assert made.returncode == 0, made.stderr
    return keys


def ask_over_http(product: Product, key: str, times: int) -> list[httpx2.Response]:
    """So many requests, each by a connection of its own, so that either process may get it."""
    headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
    with httpx2.Client(base_url=f"{product.url}api/v1/", headers=headers, timeout=20) as client:
        return [client.get("tools/?limit=1") for _ in range(times)]


async def ping(product: Product, key: str, times: int) -> list[str]:
    """What so many pings by one connection come to."""
    async with open_session(product.websocket_url, key) as client:
        return [(await client.call("session.ping")).terminal.type for _ in range(times)]


async def test_two_processes_and_both_doors_share_one_limit(pair: Product, limited: Keys) -> None:
    taken = 0
    for _ in range(4):
        taken += (await ping(pair, limited.agent, 40)).count("response")
        taken += [answer.status_code for answer in ask_over_http(pair, limited.agent, 20)].count(200)
    # Some come back while it is asked: one in 18 s.
    assert AMOUNT - HELD <= taken <= AMOUNT + 5
    refused = ask_over_http(pair, limited.agent, 1)[0]
    assert (refused.status_code, refused.json()["code"]) == (429, "security.rate_limited")
    assert refused.json()["details"]["limit"] == "tests-agent"
    assert int(refused.headers["retry-after"]) >= 1
    assert "error" in await ping(pair, limited.agent, 1)


def test_a_quota_counts_accepted_runs_and_a_repeated_one_once(pair: Product, limited: Keys) -> None:
    headers = {"Authorization": f"Bearer {limited.other}"}
    with httpx2.Client(base_url=f"{pair.url}api/v1/", headers=headers, timeout=20) as client:

        def execute(key: str, text: object = "a b") -> int:
            answer = client.post(
                "tools/text.count_words/execute/", json={"input": {"text": text}}, headers={"Idempotency-Key": key}
            )
            return answer.status_code

        # What is refused for its input is no run.
        assert execute("wrong", 1) == 422
        assert [execute(key) for key in ("a", "a", "b", "b", "c", "d")] == [202, 202, 202, 202, 202, 429]
        # What was accepted is answered again, over the limit too.
        assert execute("a") == 202


def get_degraded(product: Product) -> list[str]:
    return list(httpx2.get(f"{product.url}readyz", timeout=20).json()["degraded"])


async def test_without_redis_both_go_on_with_their_share(
    pair: Product, limited: Keys, broker: tuple[Path, ExitStack]
) -> None:
    folder, running = broker
    key = limited.other
    taken = (await ping(pair, key, 20)).count("response")
    redis.Redis.from_url(f"unix://{folder / 'broker.sock'}").flushall()
    taken += (await ping(pair, key, 20)).count("response")
    assert taken == 40
    running.close()
    wait_until(lambda: [get_degraded(pair) for _ in range(8)] == [["limits"]] * 8, what="the loss of Redis")
    async with open_session(pair.websocket_url, key) as client:
        assert "limits" in (await client.call("session.status")).result["degraded"]
    answers = [answer.status_code for answer in ask_over_http(pair, key, AMOUNT + 3 * HELD)]
    assert set(answers) == {200, 429}
    assert answers.count(200) <= AMOUNT + HELD + 5
    running.enter_context(run_valkey(socket=folder / "broker.sock", data_dir=folder))
    wait_until(lambda: [get_degraded(pair) for _ in range(8)] == [[]] * 8, what="the return of Redis")
