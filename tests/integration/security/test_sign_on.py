"""Signing on to the console by OpenID Connect, against a real provider: whom it lets in, and all that it does not."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from pytest_httpserver import HTTPServer
from werkzeug import Response

from mcp_site.errors import BadEnvironment
from mcp_site.settings.reading import parse_environment
from security import selectors, services
from security.domain.lockout import ADDRESS_ALLOWANCE
from security.models import Account, AuditEvent, LoginFailure, ProviderLink
from security.selectors import get_account_principal
from tests.factories import PASSWORD, create_operator, create_person, create_service
from tests.openid import (
    CLIENT_ID,
    CLIENT_SECRET,
    Key,
    OpenIDProvider,
    run_server,
    sign_by_own_key,
    sign_none,
    sign_with_public_key,
    sign_with_secret,
)
from tests.second_factors import enrol

pytestmark = pytest.mark.django_db

ADDRESS = "192.0.2.9"
EMAIL = "boss@example.org"


@pytest.fixture(autouse=True)
def _cheap_hasher(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="module")
def server() -> Iterator[HTTPServer]:
    with run_server() as server:
        yield server


@pytest.fixture
def provider(settings: Any, server: HTTPServer) -> OpenIDProvider:
    """The provider that the settings name; the boss is signed in there."""
    provider = OpenIDProvider(server=server)
    provider.person = {"sub": "subject-of-boss", "email": EMAIL, "email_verified": True}
    settings.AUTHENTICATION_BACKENDS = ["security.backends.PasswordBackend", "security.backends.ProviderBackend"]
    configure(settings, oidc_issuer=provider.issuer, oidc_client_id=CLIENT_ID, oidc_client_secret=CLIENT_SECRET)
    return provider


@pytest.fixture
def boss() -> Account:
    account = create_operator(username="boss", password=PASSWORD)
    Account.objects.filter(pk=account.pk).update(email=EMAIL)
    account.refresh_from_db()
    return account


def configure(settings: Any, **values: Any) -> None:
    settings.MCP = msgspec.structs.replace(settings.MCP, **values)


def begin(client: Client, **form: str) -> dict[str, str]:
    """Press the button; what the browser is led to the provider with."""
    response = client.post(reverse("admin:sign_on"), form, REMOTE_ADDR=ADDRESS)
    assert response.status_code == 200, response.headers
    url = response.context["url"]
    assert f'content="0;url={url}"' in response.content.decode().replace("&amp;", "&")
    return dict(parse_qsl(urlsplit(url).query))


def come_back(client: Client, **query: str) -> Any:
    return client.get(reverse("admin:sign_on_callback"), query, REMOTE_ADDR=ADDRESS)


def sign_on(client: Client, provider: OpenIDProvider, **form: str) -> Any:
    """The whole way, as a browser goes it."""
    query = begin(client, **form)
    return come_back(client, code=provider.give_code(query), state=query["state"], iss=provider.issuer)


def give(client: Client, code: str) -> Any:
    """The console's second step."""
    return client.post(reverse("admin:second_factor"), {"code": code}, REMOTE_ADDR=ADDRESS)


def get(client: Client, address: str) -> Any:
    return client.get(address, REMOTE_ADDR=ADDRESS)


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index"), REMOTE_ADDR=ADDRESS).status_code == 200


def get_refusal(response: Any) -> str:
    """Why the sign-on was not taken, as the person is told."""
    assert response.status_code == 302
    assert urlsplit(response.url).path == reverse("admin:login")
    query: dict[str, str] = dict(parse_qsl(urlsplit(response.url).query))
    return query["refused"]


def list_refusals() -> list[str]:
    """What the record says of refused sign-ons."""
    found = AuditEvent.objects.filter(action="access.deny").order_by("id")
    return [name for name in found.values_list("resource_name", flat=True) if name.startswith("OpenID Connect")]


# Whom it lets in


def test_staff_signs_on(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    page = client.get(reverse("admin:login"))
    assert 'id="sign-on-form"' in page.content.decode()
    query = begin(client)
    assert query["response_type"] == "code"
    assert query["code_challenge_method"] == "S256"
    assert {"openid", "email"} <= set(query["scope"].split())
    before = client.session.session_key
    response = come_back(client, code=provider.give_code(query), state=query["state"])
    assert (response.status_code, response.url) == (302, reverse("admin:index"))
    assert is_in(client)
    assert client.session.session_key != before
    link = ProviderLink.objects.get()
    assert (link.account, link.issuer, link.subject) == (boss, provider.issuer, "subject-of-boss")
    event = AuditEvent.objects.get(action="sign_on.link")
    assert (event.resource_name, event.outcome) == ("boss", "linked")
    signed_in = AuditEvent.objects.get(action="console.sign_in")
    assert '"openid_connect"' in signed_in.data_json


def test_the_subject_is_what_counts_from_then_on(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    sign_on(client, provider)
    provider.person |= {"email": "new-name@example.org", "email_verified": False}
    client.logout()
    sign_on(client, provider)
    assert is_in(client)


def test_whoever_gets_the_address_later_is_not_let_in(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    sign_on(client, provider)
    client.logout()
    provider.person["sub"] = "somebody-else"
    assert get_refusal(sign_on(client, provider)) == "no_account"
    assert not is_in(client)
    assert list_refusals() == ["OpenID Connect: its account is linked with another subject"]


def test_an_address_that_two_accounts_have_is_nobodys(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    other = create_person(is_staff=True)
    Account.objects.filter(pk=other.pk).update(email=EMAIL.upper())
    assert get_refusal(sign_on(client, provider)) == "no_account"


@pytest.mark.parametrize("is_verified", [False, None, "true", 1])
def test_an_address_must_be_verified(
    client: Client, provider: OpenIDProvider, boss: Account, is_verified: object
) -> None:
    provider.wrong = {"email_verified": is_verified}
    assert get_refusal(sign_on(client, provider)) == "no_account"
    assert not ProviderLink.objects.exists()


def test_accounts_are_found_by_another_claim_where_it_is_set(
    client: Client, provider: OpenIDProvider, boss: Account, settings: Any
) -> None:
    configure(settings, oidc_account_claim="preferred_username")
    provider.person["preferred_username"] = "Boss"
    assert get_refusal(sign_on(client, provider)) == "no_account"
    provider.person["preferred_username"] = "boss"
    sign_on(client, provider)
    assert is_in(client)


def test_nobody_is_linked_by_a_claim_where_none_is_set(
    client: Client, provider: OpenIDProvider, boss: Account, settings: Any
) -> None:
    configure(settings, oidc_account_claim="none")
    provider.person["none"] = "boss"
    assert get_refusal(sign_on(client, provider)) == "no_account"
    services.link_account(
        account=boss,
        issuer=provider.issuer,
        subject="subject-of-boss",
        principal=get_account_principal(account=boss),
        trace_id="",
    )
    sign_on(client, provider)
    assert is_in(client)


def test_a_claim_can_be_required(client: Client, provider: OpenIDProvider, boss: Account, settings: Any) -> None:
    configure(settings, oidc_required_claim="groups=operators")
    for groups in (None, [], ["operators-not"], "operator", {"operators": 1}):
        provider.wrong = {"groups": groups}
        assert get_refusal(sign_on(client, provider)) == "no_account"
    provider.wrong = {"groups": ["staff", "operators"]}
    sign_on(client, provider)
    assert is_in(client)


def inactive(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(is_active=False)


def not_staff(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(is_staff=False)


@pytest.mark.parametrize("change", [inactive, not_staff])
@pytest.mark.parametrize("is_linked", [True, False])
def test_who_may_not_open_the_console_does_not(
    client: Client, provider: OpenIDProvider, boss: Account, change: Callable[[Account], None], is_linked: bool
) -> None:
    if is_linked:
        ProviderLink.objects.create(account=boss, issuer=provider.issuer, subject="subject-of-boss")
    change(boss)
    assert get_refusal(sign_on(client, provider)) == "no_account"
    assert not is_in(client)
    assert ProviderLink.objects.exists() is is_linked
    assert list_refusals() == ["OpenID Connect: its account is inactive, a service, or not staff"]


def test_a_service_never_gets_in(client: Client, provider: OpenIDProvider) -> None:
    service = create_service()
    Account.objects.filter(pk=service.pk).update(email=EMAIL)
    assert get_refusal(sign_on(client, provider)) == "no_account"
    with pytest.raises(Exception, match="service"):
        services.link_account(
            account=service,
            issuer=provider.issuer,
            subject="x",
            principal=get_account_principal(account=service),
            trace_id="",
        )
    # Somebody who can write to the database links it all the same.
    ProviderLink.objects.create(account=service, issuer=provider.issuer, subject="subject-of-boss")
    assert get_refusal(sign_on(client, provider)) == "no_account"


def test_a_stranger_gets_no_account(client: Client, provider: OpenIDProvider) -> None:
    count = Account.objects.count()
    assert get_refusal(sign_on(client, provider)) == "no_account"
    assert Account.objects.count() == count
    assert list_refusals() == ["OpenID Connect: linked with no account"]


def test_address_rules_hold(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    from security.models import AddressRule

    AddressRule.objects.create(account=boss, effect="allow", network="198.51.100.0/24")
    assert get_refusal(sign_on(client, provider)) == "ip_denied"
    assert not is_in(client)


# What is no sign-on


def set_wrong(**claims: Any) -> Callable[[OpenIDProvider], None]:
    return lambda provider: provider.wrong.update(claims)


def set_sign(sign: Any) -> Callable[[OpenIDProvider], None]:
    return lambda provider: setattr(provider, "sign", sign)


@pytest.mark.parametrize(
    "spoil",
    [
        set_wrong(nonce="another"),
        set_wrong(nonce=None),
        set_wrong(nonce=["another"]),
        set_wrong(aud="another-client"),
        set_wrong(aud=None),
        set_wrong(aud=[CLIENT_ID, "another-client"]),
        set_wrong(azp="another-client"),
        set_wrong(iss="https://elsewhere.example"),
        set_wrong(iss=None),
        set_wrong(exp=int(time.time()) - 3600),
        set_wrong(exp=None),
        set_wrong(exp="soon"),
        set_wrong(iat=int(time.time()) + 3600),
        set_wrong(nbf=int(time.time()) + 3600),
        set_wrong(sub=None),
        set_wrong(sub=""),
        set_wrong(sub=7),
        set_wrong(sub="nul\x00"),
        set_wrong(sub="x" * 300),
        set_wrong(at_hash="AAAA"),
        set_sign(sign_none),
        set_sign(sign_with_public_key),
        set_sign(sign_with_secret),
        set_sign(sign_by_own_key),
        set_sign(lambda _claims, _key: "no.token"),
        set_sign(lambda _claims, _key: ""),
        set_sign(lambda _claims, _key: None),
    ],
)
def test_a_bad_id_token_is_none(
    client: Client, provider: OpenIDProvider, boss: Account, spoil: Callable[[OpenIDProvider], None]
) -> None:
    spoil(provider)
    assert get_refusal(sign_on(client, provider)) == "not_taken"
    assert not is_in(client)
    assert not ProviderLink.objects.exists()
    assert list_refusals() == ["OpenID Connect: its ID token is not good"]


def test_a_state_of_another_sign_on_is_refused_and_ends_this_one(
    client: Client, provider: OpenIDProvider, boss: Account
) -> None:
    query = begin(client)
    code = provider.give_code(query)
    assert get_refusal(come_back(client, code=code, state="x" * 43)) == "again"
    assert get_refusal(come_back(client, code=code, state=query["state"])) == "again"
    assert "/token" not in provider.asked
    assert list_refusals() == [
        "OpenID Connect: another sign-on's state",
        "OpenID Connect: not begun by this browser, or too long ago",
    ]


def test_another_browsers_sign_on_is_not_taken(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    """Nobody is signed on as somebody else by a link that was sent to them."""
    query = begin(Client())
    code = provider.give_code(query)
    assert get_refusal(come_back(client, code=code, state=query["state"])) == "again"
    own = begin(client)
    assert get_refusal(come_back(client, code=code, state=own["state"])) == "not_taken"
    assert not is_in(client)


def test_a_code_counts_once(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    query = begin(client)
    code = provider.give_code(query)
    come_back(client, code=code, state=query["state"])
    assert is_in(client)
    client.logout()
    assert get_refusal(come_back(client, code=code, state=query["state"])) == "again"
    again = begin(client)
    assert get_refusal(come_back(client, code=code, state=again["state"])) == "not_taken"
    assert not is_in(client)


def test_a_sign_on_must_come_back_soon(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    query = begin(client)
    session = client.session
    session["sign_on"] = {**session["sign_on"], "until": 0}
    session.save()
    assert get_refusal(come_back(client, code=provider.give_code(query), state=query["state"])) == "again"


@pytest.mark.parametrize("query", [{"error": "access_denied"}, {"code": ""}, {"code": "x" * 5000}, {}])
def test_no_code_is_no_sign_on(client: Client, provider: OpenIDProvider, query: dict[str, str]) -> None:
    state = begin(client)["state"]
    assert get_refusal(come_back(client, state=state, **query)) == "provider"


def test_another_providers_answer_is_not_taken(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    query = begin(client)
    response = come_back(client, code=provider.give_code(query), state=query["state"], iss="https://elsewhere.example")
    assert get_refusal(response) == "again"
    assert "/token" not in provider.asked


@pytest.mark.parametrize(
    "next_url",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "http:///evil.example", ""],
)
def test_it_leads_nowhere_else(client: Client, provider: OpenIDProvider, boss: Account, next_url: str) -> None:
    assert sign_on(client, provider, next=next_url).url == reverse("admin:index")
    refused = begin(client, next=next_url)
    assert refused["redirect_uri"] == f"http://testserver{reverse('admin:sign_on_callback')}"
    provider.wrong = {"nonce": "another"}
    assert "evil" not in sign_on(client, provider, next=next_url).url


def test_it_leads_on_to_where_one_wanted_to_go(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    wanted = reverse("admin:security_account_changelist")
    assert sign_on(client, provider, next=wanted).url == wanted


def test_only_the_consoles_own_page_begins_it(provider: OpenIDProvider) -> None:
    strict = Client(enforce_csrf_checks=True)
    assert strict.post(reverse("admin:sign_on")).status_code == 403
    assert strict.get(reverse("admin:sign_on")).status_code == 405
    assert provider.asked == []


def test_without_a_provider_there_is_none(client: Client) -> None:
    assert "sign-on-form" not in client.get(reverse("admin:login")).content.decode()
    assert client.post(reverse("admin:sign_on")).status_code == 404
    assert come_back(client, code="x", state="x").status_code == 404


def test_failures_are_counted_by_address(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    for _ in range(3):
        sign_on(client, provider)
    (counter,) = LoginFailure.objects.all()
    before = counter.clear_at
    provider.wrong = {"nonce": "another"}
    sign_on(client, provider)
    counter.refresh_from_db()
    assert counter.clear_at > before
    provider.wrong = {}
    for _ in range(ADDRESS_ALLOWANCE.attempts):
        query = begin(client)
        come_back(client, state="another", code="x")
    query = begin(client)
    response = come_back(client, code=provider.give_code(query), state=query["state"])
    assert get_refusal(response) == "locked_out"


def test_a_visit_that_nobody_began_is_counted_for_nobody(client: Client, provider: OpenIDProvider) -> None:
    come_back(client, code="x", state="x")
    assert not LoginFailure.objects.exists()


# The provider's keys, and its absence


def test_new_keys_are_fetched(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    sign_on(client, provider)
    client.logout()
    provider.key = Key(kid="second")
    sign_on(client, provider)
    assert is_in(client)
    assert provider.asked.count("/keys") == 2
    assert provider.asked.count("/.well-known/openid-configuration") == 1


def test_keys_are_not_fetched_for_whatever_a_token_names(
    client: Client, provider: OpenIDProvider, boss: Account
) -> None:
    def sign(claims: dict[str, Any], key: Key) -> str:
        from tests.openid import sign_rs256

        return sign_rs256(claims, Key(kid="unknown", name=key.kid))

    provider.sign = sign
    for _ in range(4):
        assert get_refusal(sign_on(client, provider)) == "not_taken"
    assert provider.asked.count("/keys") == 2


def compress(_path: str) -> Response:
    return Response(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    "answer",
    [
        lambda _path: Response(status=503),
        lambda _path: Response("no JSON"),
        lambda _path: Response("[]"),
        lambda _path: Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
        lambda _path: Response("x" * (1024 * 1024)),
        compress,
    ],
)
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
def test_a_provider_that_answers_otherwise_is_away(
    client: Client, provider: OpenIDProvider, boss: Account, answer: Callable[[str], Response], path: str
) -> None:
    provider.answer = lambda asked: answer(asked) if asked == path else None
    if path == "/.well-known/openid-configuration":
        response = client.post(reverse("admin:sign_on"), REMOTE_ADDR=ADDRESS)
    else:
        response = sign_on(client, provider)
    assert get_refusal(response) in {"away", "not_taken"}
    assert not is_in(client)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://elsewhere.example"},
        {"token_endpoint": "http://elsewhere.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
)
def test_a_description_that_leads_elsewhere_is_none(
    client: Client, provider: OpenIDProvider, metadata: dict[str, Any]
) -> None:
    provider.metadata = metadata
    assert get_refusal(client.post(reverse("admin:sign_on"))) == "away"


def test_while_the_provider_is_away_the_password_does(
    client: Client, provider: OpenIDProvider, boss: Account, settings: Any
) -> None:
    with socket.socket() as nobody:
        # Bound and not listening: nothing answers there.
        nobody.bind(("127.0.0.1", 0))
        configure(settings, oidc_issuer=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        response: Any = client.post(reverse("admin:sign_on"))
    assert get_refusal(response) == "away"
    page = client.get(response.url).content.decode()
    assert 'data-refusal="away"' in page
    client.post(response.url, {"username": "boss", "password": PASSWORD}, REMOTE_ADDR=ADDRESS)
    assert is_in(client)


def test_no_secret_is_logged(
    client: Client, provider: OpenIDProvider, boss: Account, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        query = begin(client)
        code = provider.give_code(query)
        come_back(client, code=code, state=query["state"])
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("werkzeug", "asyncio"))]
    for secret in (CLIENT_SECRET, code, query["state"], query["nonce"]):
        assert not any(secret in line for line in ours)


# Second factor


def test_the_second_factor_is_still_asked_for(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    phone = enrol(boss)
    provider.person["amr"] = ["pwd", "mfa"]
    assert sign_on(client, provider).url == reverse("admin:second_factor")
    assert not is_in(client)
    response = give(client, phone.show())
    assert response.url == reverse("admin:index")
    assert is_in(client)
    assert '"openid_connect"' in AuditEvent.objects.get(action="console.sign_in").data_json


@pytest.mark.parametrize(
    ("claims", "is_enough"),
    [
        ({"amr": ["pwd", "mfa"]}, True),
        ({"acr": "mfa"}, True),
        ({"amr": ["pwd"]}, False),
        ({"amr": []}, False),
        ({"acr": "mfa-not"}, False),
        ({}, False),
    ],
)
def test_the_providers_counts_where_it_is_set(
    client: Client, provider: OpenIDProvider, boss: Account, settings: Any, claims: dict[str, Any], is_enough: bool
) -> None:
    configure(settings, oidc_second_factor_values=("mfa",))
    enrol(boss)
    provider.person |= claims
    sign_on(client, provider)
    assert is_in(client) is is_enough


def test_unlinked_in_between_nobody_gets_in(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    phone = enrol(boss)
    sign_on(client, provider)
    ProviderLink.objects.all().delete()
    response = give(client, phone.show())
    assert response.url == reverse("admin:login")
    assert not is_in(client)


def test_an_old_sign_on_at_the_provider_changes_no_second_factor(
    client: Client, provider: OpenIDProvider, boss: Account
) -> None:
    address = reverse("admin:second_factor_begin")
    provider.person["auth_time"] = int(time.time()) - 3600
    sign_on(client, provider)
    assert is_in(client)
    assert "again=1" in get(client, address).url
    page = get(client, get(client, address).url).content.decode()
    assert 'name="again"' in page
    query = begin(client, again="1")
    assert int(query["max_age"]) <= 60
    provider.person["auth_time"] = int(time.time())
    come_back(client, code=provider.give_code(query), state=query["state"])
    assert client.get(address).status_code == 200


def test_signing_in_again_needs_a_time(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    assert get_refusal(sign_on(client, provider, again="1")) == "not_taken"


# The end


def test_all_that_ends_sign_ins_ends_it(client: Client, provider: OpenIDProvider, boss: Account, settings: Any) -> None:
    def end_by_revoking() -> None:
        services.end_sign_ins(account_id=boss.id, principal=None, trace_id="")

    def end_by_unlinking() -> None:
        services.unlink_account(
            account=boss, issuer=provider.issuer, principal=get_account_principal(account=boss), trace_id=""
        )

    def end_by_configuration() -> None:
        settings.AUTHENTICATION_BACKENDS = settings.AUTHENTICATION_BACKENDS[:1]

    for end in (end_by_revoking, end_by_unlinking, end_by_configuration):
        sign_on(client, provider)
        assert is_in(client)
        end()
        assert not is_in(client)


def test_a_session_of_another_issuer_ends(
    client: Client, provider: OpenIDProvider, boss: Account, settings: Any
) -> None:
    sign_on(client, provider)
    configure(settings, oidc_issuer="https://elsewhere.example")
    assert not is_in(client)


def test_signing_out(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    sign_on(client, provider)
    client.post(reverse("admin:logout"))
    assert not is_in(client)


# Linking


def press(client: Client, action: str, account: Account, **form: str) -> Any:
    address = reverse(f"admin:security_account_{action}", args=[account.pk])
    return client.post(address, {"_form_submitted": "true", **form})


def test_an_operator_links_and_unlinks(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    anna = create_person(username="anna", is_staff=True)
    page = reverse("admin:security_account_change", args=[anna.pk])
    client.force_login(boss)
    assert "Link with the provider" in client.get(page).content.decode()
    press(client, "link_subject", anna, subject="subject-of-anna")
    link = selectors.get_provider_link(account=anna, issuer=provider.issuer)
    assert link is not None
    assert link.subject == "subject-of-anna"
    text = client.get(page).content.decode()
    assert "subject-of-anna" in text
    assert "Unlink from the provider" in text
    press(client, "link_subject", boss, subject="subject-of-anna")
    assert selectors.get_provider_link(account=boss, issuer=provider.issuer) is None
    press(client, "unlink_subject", anna)
    assert not ProviderLink.objects.exists()
    acts = AuditEvent.objects.filter(action__startswith="sign_on.").order_by("id")
    assert [(act.action, act.resource_name, act.actor_name) for act in acts] == [
        ("sign_on.link", "anna", "boss"),
        ("sign_on.unlink", "anna", "boss"),
    ]


def test_only_superusers_link(client: Client, provider: OpenIDProvider, boss: Account) -> None:
    client.force_login(create_person(is_staff=True))
    press(client, "link_subject", boss, subject="mine")
    assert not ProviderLink.objects.exists()


def test_a_subject_is_one_accounts_and_an_account_one_subjects(boss: Account) -> None:
    other = create_person()
    ProviderLink.objects.create(account=boss, issuer="https://a.example", subject="s")
    for account, subject in ((other, "s"), (boss, "t"), (other, "")):
        with pytest.raises(IntegrityError), transaction.atomic():
            ProviderLink.objects.create(account=account, issuer="https://a.example", subject=subject)


# The settings

GOOD = {
    "MCP_OIDC_ISSUER": "https://id.example/realm",
    "MCP_OIDC_CLIENT_ID": CLIENT_ID,
    "MCP_OIDC_CLIENT_SECRET": CLIENT_SECRET,
}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"MCP_OIDC_CLIENT_SECRET": ""}, "MCP_OIDC_CLIENT_SECRET"),
        ({"MCP_OIDC_CLIENT_ID": ""}, "MCP_OIDC_CLIENT_ID"),
        ({"MCP_OIDC_ISSUER": ""}, "MCP_OIDC_ISSUER"),
        ({"MCP_OIDC_ISSUER": "http://id.example"}, "MCP_OIDC_ISSUER"),
        ({"MCP_OIDC_ISSUER": "id.example"}, "MCP_OIDC_ISSUER"),
        ({"MCP_OIDC_ISSUER": "https://a:b@id.example"}, "MCP_OIDC_ISSUER"),
        ({"MCP_OIDC_ISSUER": "https://id.example/?x"}, "MCP_OIDC_ISSUER"),
        ({"MCP_OIDC_SCOPES": "email"}, "MCP_OIDC_SCOPES"),
        ({"MCP_OIDC_REQUIRED_CLAIM": "groups"}, "MCP_OIDC_REQUIRED_CLAIM"),
        ({"MCP_OIDC_SIGNING_ALGORITHM": "none"}, "MCP_OIDC_SIGNING_ALGORITHM"),
        ({"MCP_OIDC_SIGNING_ALGORITHM": "HS256"}, "MCP_OIDC_SIGNING_ALGORITHM"),
    ],
)
def test_half_a_configuration_is_refused(changes: dict[str, str], named: str) -> None:
    values = {name: value for name, value in {**GOOD, **changes}.items() if value}
    with pytest.raises(BadEnvironment) as caught:
        parse_environment(values)
    assert str(caught.value).startswith(named)
    assert "\n" not in str(caught.value)
    assert CLIENT_SECRET not in str(caught.value)


def test_a_whole_one_is_taken_and_shows_no_secret() -> None:
    environment = parse_environment(GOOD)
    assert environment.openid_provider is not None
    assert CLIENT_SECRET not in repr(environment) + repr(environment.openid_provider)
    assert parse_environment({}).openid_provider is None
    assert parse_environment({**GOOD, "MCP_OIDC_ISSUER": "http://127.0.0.1:9"}).openid_provider is not None
