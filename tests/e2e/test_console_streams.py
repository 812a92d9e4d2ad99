"""The console's streams of news over real HTTP: many of them hold no thread, and end with their run."""

from __future__ import annotations

import re
from contextlib import ExitStack
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

from tests.client import open_session
from tests.e2e.conftest import Keys, find_web
from tests.services import Product, wait_until

STREAMS = 20
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


def sign_in(product: Product) -> OpenerDirector:
    """A browser as far as this test needs one, with the operator signed in."""
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    address = f"{product.url}admin/login/"
    with browser.open(address, timeout=10) as page:
        (token,) = set(TOKEN.findall(page.read().decode()))
    fields = {"username": "operator", "password": product.operator_password, "csrfmiddlewaretoken": token}
    with browser.open(address, urlencode({**fields, "next": "/healthz"}).encode(), timeout=10) as page:
        assert page.url.endswith("/healthz")
    return browser


async def test_streams_hold_no_thread_and_end_with_their_run(product: Product, keys: Keys, tmp_path: Path) -> None:
    browser = sign_in(product)
    async with open_session(product.websocket_url, keys.agent) as client:
        answer = await client.execute("sample_tools.wait_for", {"path": str(tmp_path / "done")}, mode="queue")
    execution = answer.result["execution_id"]
    web = find_web(product)
    with ExitStack() as opened:
        before = web.num_threads()
        address = f"{product.url}admin/tools/execution/{execution}/watch/"
        streams = [opened.enter_context(browser.open(address, timeout=20)) for _ in range(STREAMS)]
        for stream in streams:
            assert stream.readline().startswith(b"retry: ")
        # Threads of the pool for the database may have been made meanwhile.
        wait_until(lambda: web.num_threads() < before + STREAMS / 2, what="the end of the requests' threads")
        (tmp_path / "done").touch()
        for stream in streams:
            assert stream.read().rstrip().endswith(b"event: over\ndata: {}")
