"""The console in a real browser, against the real product: what every page is held to, and how tests act on one.

The browser is Debian's Chromium, or what ``TEST_CHROMIUM`` names. In CI a missing one is a failure.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, Response, expect, sync_playwright

from tests.services import Product

WAIT_MS: Final = 15_000
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "light": {"resultTypes": ["violations"]},
    # All but the colours is the same in both.
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]},
}
"""The themes, and what axe-core is run with in each."""
OWN_NAMES: Final = frozenset({"127.0.0.1", "localhost"})
BAD_IMPACTS: Final = frozenset({"serious", "critical"})
EXCUSED: Final = {
    # Django's autocomplete is select2, which names its box by the text in it: with nothing chosen by nothing.
    "aria-input-field-name": "select2-",
}
"""What axe-core finds that is not ours to mend: the rule, and what the selector of each node has in it."""

expect.set_options(timeout=WAIT_MS)


def find_chromium() -> str:
    """The browser's path; without one the tests are skipped, in CI they fail."""
    path = os.environ.get("TEST_CHROMIUM") or shutil.which("chromium")
    if path and Path(path).exists():
        return path
    message = "there is no Chromium (Debian: apt-get install chromium; or TEST_CHROMIUM=path)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


# For this folder's tests only: while Playwright's own event loop is there, the thread can run no other.
@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass(kw_only=True)
class Console:
    """One browser page, signed in or not, that notes all that a page must not do."""

    page: Page
    product: Product
    wrongs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._note_message(message.type, message.text))
        self.page.on("pageerror", lambda error: self.wrongs.append(f"script: {error}"))
        self.page.on("request", self._note_request)
        self.page.on("requestfailed", self._note_failure)
        self.page.on("response", self._note_response)

    def open(self, path: str) -> None:
        """Open the page of that path below the console's own."""
        self.page.goto(f"{self.product.url}admin/{path}")

    def open_tool(self, name: str) -> None:
        self.open(f"tools/tool/?q={name}")
        self.page.get_by_role("link", name=name, exact=True).click()
        expect(self.page.locator("#record")).to_contain_text(name)

    def open_form(self, name: str) -> None:
        """The form that the tool is run by."""
        self.open_tool(name)
        self.act("Run")
        expect(self.page.locator("#run-form")).to_be_visible()

    def act(self, action: str) -> None:
        """Press one of the page's actions."""
        self.page.locator("#page-actions").get_by_role("link", name=action, exact=True).click()

    def confirm(self, action: str) -> None:
        """Press the button of the dialog that is open."""
        self.page.locator("#dialog").get_by_role("button", name=action).click()

    def expect_state(self, state: str) -> None:
        """Wait until the run whose page is open is in the state."""
        expect(self.page.locator("#run")).to_contain_text(state)

    def mark(self) -> None:
        """Leave a mark that a reload would take away."""
        self.page.evaluate("window.isMarked = true")

    def is_marked(self) -> bool:
        return bool(self.page.evaluate("window.isMarked === true"))

    def check(self) -> None:
        """Hold the page as it is to the rules of accessibility, in both themes."""
        self.page.evaluate(Axe().axe_script)
        for scheme, options in SCHEMES.items():
            self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]  # one of its literals
            self.page.evaluate("isDark => document.documentElement.classList.toggle('dark', isDark)", scheme == "dark")
            # Colours fade in; what is judged is what stays.
            self.page.evaluate("Promise.all(document.getAnimations().map(each => each.finished.catch(() => null)))")
            found = self.page.evaluate("options => axe.run(document, options)", options)["violations"]
            self.wrongs += [f"{scheme} {describe(each)}" for each in found if is_serious(each)]
        assert self.wrongs == []

    def _note_message(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.wrongs.append(f"{kind}: {text}")

    def _note_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in {"data", "blob"} and urlsplit(request.url).hostname not in OWN_NAMES:
            self.wrongs.append(f"leaves the machine: {request.url}")

    def _note_failure(self, request: Request) -> None:
        # What a page gives up itself, by being left or by closing its stream, has not failed.
        if request.failure != "net::ERR_ABORTED":
            self.wrongs.append(f"failed: {request.url} {request.failure}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.wrongs.append(f"{response.status}: {response.url}")


def is_serious(violation: dict[str, Any]) -> bool:
    excuse = EXCUSED.get(violation["id"])
    targets = [str(node["target"]) for node in violation["nodes"]]
    is_excused = excuse is not None and all(excuse in target for target in targets)
    return violation["impact"] in BAD_IMPACTS and not is_excused


def describe(violation: dict[str, Any]) -> str:
    nodes = "; ".join(node["html"][:200] for node in violation["nodes"][:3])
    return f"{violation['impact']} {violation['id']}: {nodes}"


@pytest.fixture
def visitor(chromium: Browser, product: Product) -> Iterator[Console]:
    """A browser that nobody has signed in with."""
    with chromium.new_context() as context:
        console = make_console(context, product)
        yield console
        assert console.wrongs == []


@pytest.fixture(scope="package")
def signed_in(chromium: Browser, product: Product) -> Iterator[BrowserContext]:
    """The operator's browser. One for all tests: signing in is slow, and so is a browser without anything cached."""
    with chromium.new_context(viewport={"width": 1360, "height": 900}) as context:
        console = make_console(context, product)
        sign_in(console, password=product.operator_password)
        expect(console.page.locator("#overview")).to_be_visible()
        console.page.close()
        yield context


@pytest.fixture
def console(signed_in: BrowserContext, product: Product) -> Iterator[Console]:
    """A page of the operator's browser; at the end it must have done nothing that a page must not."""
    console = make_console(signed_in, product)
    yield console
    for page in signed_in.pages:
        page.close()
    assert console.wrongs == []


def make_console(context: BrowserContext, product: Product) -> Console:
    context.set_default_timeout(WAIT_MS)
    return Console(page=context.new_page(), product=product)


def sign_in(console: Console, *, password: str) -> None:
    console.open("login/")
    console.page.get_by_label("Username").fill("operator")
    console.page.get_by_label("Password").fill(password)
    console.page.locator("button[type=submit]").click()
