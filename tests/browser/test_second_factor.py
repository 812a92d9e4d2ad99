"""Second factors in a real browser: an app set up and asked for, and a passkey of Chromium's own virtual device."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from security.domain.second_factor import make_code
from tests.browser.conftest import Console, make_console
from tests.services import Product, run_product

PASSWORD = "correct-horse-battery"
USERS = ("with-app", "with-key", "with-both")

_MAKE = """
from security import services
for name in {names!r}:
    services.create_account(username=name, password={password!r}, is_staff=True, is_superuser=True, roles=["operator"])
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product that demands second factors of its staff, reached by the name that passkeys work at without TLS."""
    with run_product(
        tmp_path_factory.mktemp("strict") / "var", MCP_REQUIRE_SECOND_FACTOR="staff", MCP_WEBAUTHN="1"
    ) as product:
        made = product.manage("shell", "--no-imports", "-c", _MAKE.format(names=USERS, password=PASSWORD))
        assert made.returncode == 0, made.stderr
        product.front = product.url.replace("127.0.0.1", "localhost")
        yield product


@pytest.fixture
def visitor(chromium: Browser, strict: Product) -> Iterator[Console]:
    with chromium.new_context() as context:
        console = make_console(context, strict)
        yield console
        assert console.wrongs == []


def give_password(console: Console, username: str) -> None:
    console.open("login/")
    console.page.get_by_label("Username").fill(username)
    console.page.get_by_label("Password").fill(PASSWORD)
    console.page.locator("button[type=submit]").click()


def read_secret(console: Console) -> bytes:
    text = console.page.locator("#app-secret").inner_text().replace(" ", "")
    return base64.b32decode(text + "=" * (-len(text) % 8))


def sign_out(console: Console) -> None:
    console.page.context.clear_cookies()


def is_in(console: Console) -> None:
    expect(console.page.locator("#overview")).to_be_visible()


def plug_in(console: Console) -> None:
    """A virtual device that holds passkeys."""
    session = console.page.context.new_cdp_session(console.page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal",
        "hasResidentKey": True,
        "hasUserVerification": True,
        "isUserVerified": True,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})


def test_an_app_is_set_up_and_asked_for(visitor: Console) -> None:
    page = visitor.page
    give_password(visitor, "with-app")
    expect(page).to_have_url(re.compile("/second-factor/begin/"))
    visitor.check()
    page.get_by_role("button", name="Authenticator app").click()
    expect(page.get_by_alt_text("The key as a QR code")).to_be_visible()
    visitor.check()
    secret = read_secret(visitor)
    step = int(time.time()) // 30
    page.get_by_label("The code that the app shows now").fill(make_code(secret=secret, step=step))
    page.get_by_role("button", name="Set up").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    visitor.check()
    recovery = page.locator("#recovery-codes code").first.inner_text()
    page.get_by_role("link", name="I have kept them").click()
    is_in(visitor)
    page.goto(f"{visitor.product.url}admin/second-factor/")
    expect(page.locator("#second-factors")).to_contain_text("10 left")
    visitor.check()

    sign_out(visitor)
    give_password(visitor, "with-app")
    page.get_by_label("Code of your authenticator app").fill("000000")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("body")).to_contain_text("wrong")
    visitor.check()
    page.get_by_label("Code of your authenticator app").fill(make_code(secret=secret, step=step + 1))
    page.get_by_role("button", name="Sign in").click()
    is_in(visitor)

    sign_out(visitor)
    give_password(visitor, "with-app")
    page.get_by_label("Code of your authenticator app").fill(recovery)
    page.get_by_role("button", name="Sign in").click()
    is_in(visitor)


def test_a_passkey_is_made_and_asked_for(visitor: Console) -> None:
    page = visitor.page
    plug_in(visitor)
    give_password(visitor, "with-key")
    page.get_by_role("link", name="Passkey").click()
    page.get_by_label("Name").fill("Laptop")
    visitor.check()
    page.get_by_role("button", name="Make a passkey").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    page.get_by_role("link", name="I have kept them").click()
    is_in(visitor)

    sign_out(visitor)
    give_password(visitor, "with-key")
    visitor.check()
    page.get_by_role("button", name="Use a passkey").click()
    is_in(visitor)

    page.goto(f"{visitor.product.url}admin/second-factor/")
    visitor.check()
    page.get_by_role("button", name="Remove Laptop").click()
    expect(page).to_have_url(re.compile("/admin/login/"))
    give_password(visitor, "with-key")
    expect(page).to_have_url(re.compile("/second-factor/begin/"))


def test_another_devices_passkey_is_not_taken(visitor: Console, chromium: Browser, strict: Product) -> None:
    page = visitor.page
    plug_in(visitor)
    give_password(visitor, "with-both")
    page.get_by_role("link", name="Passkey").click()
    page.get_by_role("button", name="Make a passkey").click()
    expect(page.locator("#recovery-codes li")).to_have_count(10)
    with chromium.new_context() as context:
        other = make_console(context, strict)
        plug_in(other)
        give_password(other, "with-both")
        # The browser itself has none that fits; what it would send is made up.
        form = other.page.locator("form[data-passkey]")
        form.evaluate('form => { form.elements.credential.value = \'{"id": "AAAA"}\'; form.submit(); }')
        expect(other.page.locator("body")).to_contain_text("wrong")
        other.open("")
        expect(other.page).to_have_url(re.compile("/admin/login/"))
