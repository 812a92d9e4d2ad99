"""News of a run for its page in the console, as a browser's EventSource gets them."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from django.contrib.auth.models import Permission
from django.db import connections
from django.test import AsyncClient
from django.urls import reverse

from protocol.database_threads import release_request_thread
from protocol.hub import get_hub
from security.models import Account
from security.selectors import get_account_principal
from tests.factories import create_person, ensure_builtin_roles
from tests.runs import accept_run
from tools import services, watching
from tools.admin import live
from tools.domain.supervision import CancelMode
from tools.models import Execution

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 10.0


@pytest.fixture(autouse=True)
def _prepared(transactional_db: None, valkey_url: str) -> None:
    ensure_builtin_roles()
    services.synchronise_tools()


@pytest.fixture(autouse=True)
async def _closed(_prepared: None) -> AsyncIterator[None]:
    """Give back the database connection of the thread that asynchronous tests do their synchronous part in."""
    yield
    await sync_to_async(connections.close_all)()


@pytest.fixture
def execution(operator: Account) -> Execution:
    return accept_run(operator)


@pytest.fixture
async def console(async_client: AsyncClient, operator: Account) -> AsyncClient:
    await async_client.aforce_login(operator)
    return async_client


async def watch(client: AsyncClient, execution_id: uuid.UUID) -> Any:
    return await client.get(reverse("admin:tools_execution_watch", args=[execution_id]))


async def cancel(operator: Account, execution: Execution) -> None:
    principal = await sync_to_async(get_account_principal)(account=operator)
    await sync_to_async(services.cancel_execution)(
        principal=principal, execution_id=execution.id, mode=CancelMode.GRACEFUL, trace_id=uuid.uuid4().hex
    )


async def read_to_end(response: Any) -> list[str]:
    """The names of the events, until the server ends the stream."""
    async with asyncio.timeout(SECONDS):
        text = b"".join([chunk async for chunk in response.streaming_content]).decode()
    return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]


async def test_a_page_is_told_of_each_change_until_the_end(
    console: AsyncClient, operator: Account, execution: Execution
) -> None:
    response = await watch(console, execution.id)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/event-stream")
    assert response.headers["Cache-Control"] == "no-cache, no-transform"
    chunks: list[str] = []
    async with asyncio.timeout(SECONDS), aclosing(response.streaming_content) as content:
        async for chunk in content:
            chunks.append(chunk.decode())
            if '"state":"queued"' in chunks[-1]:
                await cancel(operator, execution)
    assert chunks[0].startswith("retry: ")
    assert '"state":"cancelled"' in chunks[-2]
    assert chunks[-1].startswith("event: over\n")


async def test_what_has_ended_before_is_told_at_once(
    console: AsyncClient, operator: Account, execution: Execution
) -> None:
    await cancel(operator, execution)
    assert await read_to_end(await watch(console, execution.id)) == ["changed", "over"]


async def test_only_who_may_see_the_run_is_told(async_client: AsyncClient, execution: Execution) -> None:
    def make_person(*, permissions: list[str], roles: list[str], is_staff: bool = True) -> Account:
        person = create_person(is_staff=is_staff, roles=roles)
        person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return person

    assert (await watch(async_client, execution.id)).status_code == 403
    cases: list[tuple[dict[str, Any], int]] = [
        ({"permissions": [], "roles": ["operator"]}, 403),
        ({"permissions": ["view_execution"], "roles": []}, 403),
        ({"permissions": ["view_execution"], "roles": ["operator"], "is_staff": False}, 403),
        ({"permissions": ["view_execution"], "roles": ["operator"]}, 200),
    ]
    for fields, status in cases:
        await async_client.aforce_login(await sync_to_async(make_person)(**fields))
        assert (await watch(async_client, execution.id)).status_code == status, fields
    assert (await watch(async_client, uuid.uuid4())).status_code == 403


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SESSION_SECONDS", "STEP_SECONDS", "HEARTBEAT_SECONDS"):
        monkeypatch.setattr(live, name, 0.02)


async def test_a_stream_ends_with_the_session_of_who_looks(
    console: AsyncClient, execution: Execution, impatient: None
) -> None:
    response = await watch(console, execution.id)
    await console.alogout()
    assert (await read_to_end(response))[-1] == "signed-out"


async def test_a_stream_ends_when_the_account_is_made_inactive(
    console: AsyncClient, execution: Execution, operator: Account, impatient: None
) -> None:
    response = await watch(console, execution.id)
    await Account.objects.filter(pk=operator.pk).aupdate(is_active=False)
    assert (await read_to_end(response))[-1] == "signed-out"


async def test_a_stream_ends_when_the_server_drains(console: AsyncClient, execution: Execution) -> None:
    response = await watch(console, execution.id)
    get_hub().is_draining = True
    assert await read_to_end(response) == []


async def test_a_stream_ends_after_its_time_and_says_meanwhile_that_it_is_there(
    console: AsyncClient, execution: Execution, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_SECONDS", 0.5)
    response = await watch(console, execution.id)
    async with asyncio.timeout(SECONDS):
        text = b"".join([chunk async for chunk in response.streaming_content]).decode()
    assert ": still here" in text
    assert "event: over" not in text


async def test_when_too_many_watch_the_browser_is_to_come_again(
    console: AsyncClient, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHES", 0)
    assert await read_to_end(await watch(console, execution.id)) == []


async def test_a_stream_that_waits_holds_no_thread() -> None:
    async with ThreadSensitiveContext() as context:
        name = await sync_to_async(lambda: threading.current_thread().name)()
        assert context in SyncToAsync.context_to_thread_executor
        await release_request_thread()
        assert context not in SyncToAsync.context_to_thread_executor
        async with asyncio.timeout(SECONDS):
            while name in {thread.name for thread in threading.enumerate()}:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.01)
        await release_request_thread()
        assert await sync_to_async(lambda: threading.current_thread().name)() != threading.current_thread().name
