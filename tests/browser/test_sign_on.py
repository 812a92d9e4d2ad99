"""Signing on by OpenID Connect in a real browser, whose policies let the way to the provider and back through."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Console, make_console
from tests.openid import CLIENT_ID, CLIENT_SECRET, OpenIDProvider, run_server
from tests.services import Product, run_product

_MAKE = """
from security import services
from security.models import Account
account = services.create_account(
    username="boss", password=None, is_staff=True, is_superuser=True, roles=["operator"]
)
Account.objects.filter(pk=account.pk).update(email="boss@example.org")
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIDProvider]:
    with run_server() as server:
        yield OpenIDProvider(server=server)


@pytest.fixture(scope="module")
def federated(tmp_path_factory: pytest.TempPathFactory, provider: OpenIDProvider) -> Iterator[Product]:
    """A product with a provider, which lies at another origin: the browser takes another host name for another site."""
    with run_product(
        tmp_path_factory.mktemp("federated") / "var",
        MCP_OIDC_ISSUER=provider.issuer,
        MCP_OIDC_CLIENT_ID=CLIENT_ID,
        MCP_OIDC_CLIENT_SECRET=CLIENT_SECRET,
        MCP_OIDC_NAME="Example",
    ) as product:
        made = product.manage("shell", "--no-imports", "-c", _MAKE)
        assert made.returncode == 0, made.stderr
        product.front = product.url.replace("127.0.0.1", "localhost")
        yield product


@pytest.fixture
def visitor(chromium: Browser, federated: Product) -> Iterator[Console]:
    with chromium.new_context() as context:
        console = make_console(context, federated)
        yield console
        assert console.wrongs == []


def test_who_is_known_there_is_let_in_here(visitor: Console, provider: OpenIDProvider) -> None:
    provider.person = {"sub": "s-1", "email": "boss@example.org", "email_verified": True}
    page = visitor.page
    visitor.open("security/account/")
    expect(page.get_by_role("button", name="Sign on with Example")).to_be_visible()
    visitor.check()
    page.get_by_role("button", name="Sign on with Example").click()
    expect(page).to_have_url(f"{visitor.product.url}admin/security/account/")
    expect(page.locator("body")).to_contain_text("boss")
    visitor.open("")
    expect(page.locator("#overview")).to_be_visible()
    assert CLIENT_SECRET not in visitor.product.output


def test_who_is_not_known_here_is_told_so(visitor: Console, provider: OpenIDProvider) -> None:
    provider.person = {"sub": "s-2", "email": "stranger@example.org", "email_verified": True}
    page = visitor.page
    visitor.open("login/")
    page.get_by_role("button", name="Sign on with Example").click()
    expect(page.locator("#sign-on-refusal")).to_have_attribute("data-refusal", "no_account")
    visitor.check()
    visitor.open("")
    expect(page.get_by_label("Password")).to_be_visible()
