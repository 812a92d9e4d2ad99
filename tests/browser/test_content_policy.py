"""No page of the site does what its Content-Security-Policy forbids: all of them are opened in a browser that tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext

from tests.browser.conftest import Console, make_console
from tests.services import Product

LISTEN: Final = """
document.addEventListener("securitypolicyviolation", event => {
    const found = JSON.parse(sessionStorage.getItem("violations") ?? "[]")
    found.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ${event.sample}`)
    sessionStorage.setItem("violations", JSON.stringify(found))
})
"""
TAKE: Final = """() => {
    const found = sessionStorage.getItem("violations")
    sessionStorage.removeItem("violations")
    return JSON.parse(found ?? "[]")
}"""
LINKS: Final = "() => [...document.querySelectorAll('a[href]')].map(each => each.href)"
ONE: Final = re.compile(r"/(?:[0-9a-f]{8}-[0-9a-f-]{27}|\d+|[0-9a-f]{16,})/")
ERRORS: Final = ("admin/nothing/", "nothing", "api/nothing/")
OWN: Final = ("api/docs/", "admin/login/?again=1", "admin/second-factor/", "admin/second-factor/app/")


@pytest.fixture
def listening(signed_in: BrowserContext, product: Product) -> Iterator[Console]:
    """The operator's page, which tells of violations. What else is wrong with a page is other tests'."""
    console = make_console(signed_in, product)
    console.page.add_init_script(LISTEN)
    yield console
    console.page.close()


def name_kind(address: str) -> str:
    """The same for pages that differ in their row only."""
    return ONE.sub("/ROW/", urlsplit(address).path)


def test_no_page_violates_its_policy(listening: Console, product: Product) -> None:
    page, seen, violations = listening.page, set[str](), list[str]()
    waiting = [f"{product.url}{path}" for path in ("admin/", *OWN, *ERRORS)]
    while waiting:
        address = waiting.pop()
        if name_kind(address) in seen or "logout" in address:
            continue
        seen.add(name_kind(address))
        page.goto(address, wait_until="load")
        violations += [f"{address}: {found}" for found in page.evaluate(TAKE)]
        waiting += [
            link.partition("#")[0]
            for link in page.evaluate(LINKS)
            if link.startswith(f"{product.url}admin/") and "?" not in link
        ]
    assert violations == []
    lists = {kind for kind in seen if re.fullmatch(r"/admin/\w+/\w+/", kind)}
    assert len(lists) >= 17
    assert sum(kind.endswith("/add/") for kind in seen) >= 3
    assert sum("/ROW/" in kind for kind in seen) >= 8
    # They do tell: what is forbidden is seen.
    page.goto(f"{product.url}admin/")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert()>')")
    page.wait_for_function("sessionStorage.getItem('violations') !== null")
    assert "script-src" in page.evaluate(TAKE)[0]
