"""What operators do in the console, in a real browser: run and watch, cancel, keys, switches, sessions."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Console, sign_in
from tests.client import open_client, open_session
from tests.services import Product

T = TypeVar("T")

STAY_SECONDS = 30.0
LISTS = (
    "tools/execution/",
    "tools/tool/",
    "tools/workerlease/",
    "security/account/",
    "security/role/",
    "security/apikey/",
    "security/auditevent/",
    "auth/group/",
    "protocol/session/",
    "protocol/outboxmessage/",
    "django_celery_beat/periodictask/",
)


def run_agent(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What an agent does meanwhile, in a thread of its own: Playwright's event loop is in this one."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()


def execute(product: Product, key: str, tool: str, **arguments: Any) -> str:
    """The state that the agent's run ended in, or its error's code."""

    async def call() -> str:
        async with open_session(product.websocket_url, key) as client:
            answer = await client.execute(tool, arguments)
            return str(answer.result["state"]) if answer.terminal.type == "response" else answer.code

    return run_agent(call)


def sign_in_as_agent(product: Product, key: str) -> str:
    """The type of what the server answers to the key, or its error's code."""

    async def show() -> str:
        async with open_client(product.websocket_url) as client:
            await client.shake_hands()
            answer = await client.authenticate(key)
            return answer.code if answer.type == "error" else answer.type

    return run_agent(show)


@contextmanager
def connected(product: Product, key: str, *, name: str) -> Iterator[Future[int | None]]:
    """An agent of that name that stays connected; the code that the server closes with, once it has."""
    leaving = threading.Event()

    async def stay() -> int | None:
        async with open_session(product.websocket_url, key, client={"name": name}) as client:
            closing = asyncio.create_task(client.wait_closed(seconds=STAY_SECONDS))
            left = asyncio.create_task(asyncio.to_thread(leaving.wait, STAY_SECONDS))
            await asyncio.wait({closing, left}, return_when=asyncio.FIRST_COMPLETED)
            leaving.set()
            if closing.done():
                return closing.result()
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            return None

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            yield thread.submit(lambda: asyncio.run(stay()))
        finally:
            leaving.set()


def issue_key(console: Console, name: str) -> str:
    """A key of the agent's, issued in the console; its text."""
    console.open("security/apikey/add/")
    page = console.page
    page.locator(".select2-selection").click()
    page.locator(".select2-search__field").fill("agent")
    page.get_by_role("option", name="agent", exact=True).click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Save", exact=True).click()
    return page.locator("#api-key-secret").inner_text()


def revoke_key(console: Console, name: str) -> None:
    console.open(f"security/apikey/?q={name}")
    console.page.get_by_role("link", name=name).click()
    console.act("Revoke")
    console.confirm("Revoke")
    expect(console.page.locator("#content")).to_contain_text("revoked")


def test_who_signs_in_sees_the_overview(visitor: Console) -> None:
    visitor.open("")
    expect(visitor.page).to_have_url(re.compile("/admin/login/"))
    visitor.check()
    sign_in(visitor, password="wrong")
    expect(visitor.page.locator("body")).to_contain_text("Please enter the correct")
    visitor.check()
    sign_in(visitor, password=visitor.product.operator_password)
    expect(visitor.page.locator("#overview")).to_contain_text("Live workers")
    visitor.check()


def test_a_tool_is_run_by_its_form_and_watched_to_its_end(console: Console, tmp_path: Path) -> None:
    console.open_form("sample_tools.stream")
    console.check()
    page = console.page
    page.get_by_label("path").fill(str(tmp_path / "done"))
    page.get_by_role("button", name="Run", exact=True).click()
    console.expect_state("running")
    console.mark()
    expect(page.locator("#streamed")).to_contain_text("line 3")
    expect(page.locator("#timeline")).to_contain_text("step 3")
    expect(page.locator("#run progress")).to_be_visible()
    console.check()
    # More than its box holds: who was at the end stays there.
    expect(page.locator("#streamed")).to_contain_text("line 30")
    page.wait_for_function(
        "() => { const box = document.querySelector('#streamed pre');"
        " return box.scrollTop > 0 && box.scrollTop + box.clientHeight >= box.scrollHeight - 4; }"
    )
    (tmp_path / "done").touch()
    console.expect_state("succeeded")
    expect(page.locator("#output")).to_be_visible()
    expect(page.locator("#page-actions").get_by_role("link", name="Run again")).to_be_visible()
    expect(page.locator("#page-actions").get_by_role("link", name="Cancel")).to_have_count(0)
    assert console.is_marked()
    console.check()
    console.act("Run again")
    console.confirm("Run again")
    expect(page.locator("body")).to_contain_text("This run repeats")
    console.expect_state("succeeded")


def test_a_tool_is_run_by_json_too_and_told_what_is_wrong(console: Console) -> None:
    console.open_form("text.count_words")
    page = console.page
    page.get_by_role("link", name="JSON").click()
    written = page.get_by_role("textbox", name="Input")
    expect(written).to_have_value(re.compile('"text"'))
    written.fill('{"text": 1}')
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator("#run-form")).to_contain_text("/text: ")
    expect(page.get_by_role("alert")).to_contain_text("tool.invalid_input")
    console.check()
    written.fill('{"text": "one two three"}')
    page.get_by_role("button", name="Run", exact=True).click()
    console.expect_state("succeeded")
    expect(page.locator("#output")).to_contain_text('"words": 3')


def test_what_is_wrong_stands_at_its_field(console: Console) -> None:
    console.open_form("sample_tools.report")
    page = console.page
    times = page.get_by_label("times")
    assert times.get_attribute("type") == "number"
    page.locator("#run-form").evaluate("form => form.noValidate = true")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".mcp-field.errors")).to_contain_text("is required")
    expect(times).to_have_attribute("aria-invalid", "true")
    console.check()
    times.fill("2")
    page.get_by_role("button", name="Run", exact=True).click()
    console.expect_state("succeeded")


def test_a_form_that_is_sent_twice_makes_one_run(console: Console) -> None:
    console.open("tools/execution/?q=sample_tools.swell")
    page = console.page
    before = page.locator("#result_list tbody tr").count()
    console.open_form("sample_tools.swell")
    page.get_by_label("size").fill("3")
    # As by a double click, which a browser makes two requests of: the second goes out while the first is on its way.
    sent = page.locator("#run-form").evaluate(
        """async form => {
            const options = () => ({method: "POST", body: new FormData(form)});
            const answers = await Promise.all([fetch(form.action, options()), fetch(form.action, options())]);
            return answers.map(answer => answer.url);
        }"""
    )
    assert len(set(sent)) == 1
    assert re.search(r"/admin/tools/execution/[0-9a-f-]{36}/change/$", sent[0])
    console.open("tools/execution/?q=sample_tools.swell")
    expect(page.locator("#result_list tbody tr")).to_have_count(before + 1)


def test_a_long_run_is_cancelled_from_its_page(console: Console, tmp_path: Path) -> None:
    console.open_form("sample_tools.wait_for")
    console.page.get_by_label("path").fill(str(tmp_path / "never"))
    console.page.get_by_role("button", name="Run", exact=True).click()
    console.expect_state("running")
    console.act("Cancel")
    expect(console.page.locator("#dialog")).to_be_visible()
    console.check()
    console.confirm("Cancel the run")
    console.expect_state("cancelled")
    expect(console.page.locator("#error")).to_contain_text("tool.cancelled")


def test_a_key_is_issued_shown_once_used_and_revoked(console: Console, product: Product) -> None:
    name = f"browser-{uuid.uuid4().hex[:8]}"
    console.open("security/apikey/add/")
    console.check()
    key = issue_key(console, name)
    console.check()
    assert execute(product, key, "text.count_words", text="a b") == "succeeded"
    console.open(f"security/apikey/?q={name}")
    console.page.get_by_role("link", name=name).click()
    assert key not in console.page.content()
    revoke_key(console, name)
    assert sign_in_as_agent(product, key) == "security.authentication_failed"
    console.check()


def test_a_disabled_tool_is_refused_with_its_reason(console: Console, product: Product) -> None:
    console.open_form("text.search")
    form = console.page.context.new_page()
    form.goto(console.page.url)
    console.open_tool("text.search")
    console.act("Disable")
    reason = console.page.locator("#dialog").get_by_label("Reason")
    expect(reason).to_be_visible()
    console.check()
    reason.fill("It looks too far")
    console.confirm("Disable")
    expect(console.page.locator("#record")).to_contain_text("It looks too far")
    try:
        assert execute(product, product.agent_api_key, "text.search", pattern="a", text="a") == "tool.unavailable"
        form.get_by_label("pattern").fill("a")
        form.get_by_role("button", name="Run", exact=True).click()
        expect(form.get_by_role("alert")).to_contain_text("It looks too far")
        expect(console.page.locator("#page-actions").get_by_role("link", name="Run")).to_have_count(0)
    finally:
        console.act("Enable")
        console.confirm("Enable")
        expect(console.page.locator("#record")).not_to_contain_text("It looks too far")
    assert execute(product, product.agent_api_key, "text.search", pattern="a", text="a") == "succeeded"


def test_the_overview_shows_a_run_without_being_loaded_again(console: Console, product: Product) -> None:
    page = console.page
    page.set_viewport_size({"width": 900, "height": 400})
    console.open("")
    figure = page.locator(".mcp-figure", has_text="Runs in 24 h").locator(".mcp-figure-value")
    before = int(figure.inner_text())
    console.mark()
    page.evaluate("window.scrollTo(0, 200)")
    assert execute(product, product.agent_api_key, "sample_tools.report", times=1) == "succeeded"
    expect(figure).not_to_have_text(str(before))
    expect(page.locator("#overview table")).to_contain_text("sample_tools.report@1.0.0")
    assert console.is_marked()
    assert page.evaluate("window.scrollY") == 200


def test_who_is_connected_is_seen_and_can_be_sent_away(console: Console, product: Product) -> None:
    name = f"agent-{uuid.uuid4().hex[:8]}"

    with connected(product, product.agent_api_key, name=name) as closed:
        console.open("protocol/session/")
        row = console.page.get_by_role("link", name=name)
        # The list reads itself again: it may have been there before the agent.
        expect(row).to_be_visible()
        row.click()
        console.act("Close connection")
        console.confirm("Close the connection")
        expect(console.page.locator("#content")).to_contain_text("4403")
        expect(console.page.locator("#page-actions").get_by_role("link", name="Close connection")).to_have_count(0)
        console.check()
        assert closed.result(timeout=STAY_SECONDS) == 4403


@pytest.mark.parametrize("path", LISTS)
def test_lists_are_for_everybody(console: Console, path: str) -> None:
    console.open(path)
    expect(console.page.locator("#changelist, #content").first).to_be_visible()
    console.check()


def test_a_revoked_keys_open_connection_is_closed(console: Console, product: Product) -> None:
    name = f"browser-{uuid.uuid4().hex[:8]}"
    key = issue_key(console, name)
    with connected(product, key, name=name) as closed:
        console.open("protocol/session/")
        expect(console.page.get_by_role("link", name=name)).to_be_visible()
        revoke_key(console, name)
        assert closed.result(timeout=STAY_SECONDS) == 4403
    assert sign_in_as_agent(product, key) == "security.authentication_failed"


def test_the_apis_page_works_without_the_network(visitor: Console) -> None:
    page = visitor.page
    page.goto(f"{visitor.product.url}api/docs/")
    operation = page.locator("#operations-tools-listTools")
    expect(operation).to_be_visible()
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_role("textbox").fill(visitor.product.agent_api_key)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()
    operation.get_by_role("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table")).to_contain_text("text.count_words")
