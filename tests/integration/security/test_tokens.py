"""Tokens: obtained with a key or a password, shown on a socket, renewed once each, revoked as a family."""

from __future__ import annotations

import base64
import hmac
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from protocol.domain.messages import ApiKeyCredentials, JwtCredentials
from protocol.errors import AccessDenied, AuthenticationFailed, MCPError
from protocol.ports import Resource, get_authenticator, get_authorizer
from security import services, tasks
from security.domain.authorization import AccountPrincipal
from security.domain.key_states import KeyPurpose
from security.domain.tokens import REUSE_GRACE
from security.models import Account, ApiKey, AuditEvent, IssuedToken
from security.selectors import get_account_principal, get_revocation_mark
from security.services import IssuedKey, IssuedTokens, get_keyring
from tests.factories import create_service, issue_key, issue_tokens, sign_in
from tests.queries import capture_queries
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db

TRACE = "0" * 32
ADDRESS = "192.0.2.7"
PASSWORD = "correct horse battery staple"


def show(token: str) -> AccountPrincipal:
    principal = get_authenticator().authenticate(credentials=JwtCredentials(token), remote_address=ADDRESS)
    assert isinstance(principal, AccountPrincipal)
    return principal


def refresh(token: str) -> IssuedTokens:
    return services.refresh_tokens(refresh_token=token, remote_address=ADDRESS, trace_id=TRACE)


def get_refusal(call: Callable[[], object]) -> str:
    with pytest.raises(MCPError) as caught:
        call()
    assert not caught.value.details
    return caught.value.code


def make_spent_long_ago(token: str) -> None:
    long_ago = timezone.now() - REUSE_GRACE - timedelta(seconds=1)
    IssuedToken.objects.filter(id=read(token)["jti"]).update(spent_at=long_ago)


def read(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def list_audited() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.order_by("at", "id").values_list("action", "outcome"))


def revoke_key(issued: IssuedKey) -> None:
    services.revoke_api_key(api_key=issued.api_key)


# Obtaining


def test_a_pair_stands_on_the_key_and_has_its_scopes() -> None:
    key = issue_key(scopes=["tools.view"])
    pair = issue_tokens(key=key)
    principal = show(pair.access)
    assert (principal.id, principal.credential_id) == (key.api_key.account_id, pair.access_jti)
    assert principal.scopes == ("tools.view",)
    assert principal.roles == ("agent",)
    assert principal.expires_at == pair.access_expires_at
    tool = Resource(kind="tool", name="files.read")
    assert get_authorizer().is_allowed(principal=principal, action="tools.view", resource=tool)
    assert not get_authorizer().is_allowed(principal=principal, action="tools.execute", resource=tool)
    rows = IssuedToken.objects.filter(family_id=pair.family_id)
    assert {row.kind for row in rows} == {"access", "refresh"}
    assert {(row.api_key_id, tuple(row.scopes)) for row in rows} == {(key.api_key.id, ("tools.view",))}


def test_a_pair_lasts_as_the_settings_say() -> None:
    before = timezone.now()
    pair = issue_tokens()
    for expires_at, lifetime in (
        (pair.access_expires_at, timedelta(minutes=settings.MCP.access_token_minutes)),
        (pair.refresh_expires_at, timedelta(days=settings.MCP.refresh_token_days)),
    ):
        assert abs(expires_at - before - lifetime) < timedelta(seconds=5)


def test_neither_token_outlives_its_key() -> None:
    ends_at = timezone.now() + timedelta(minutes=2)
    pair = issue_tokens(key=issue_key(expires_at=ends_at))
    assert pair.access_expires_at <= ends_at
    assert pair.refresh_expires_at <= ends_at
    assert refresh(pair.refresh).refresh_expires_at <= ends_at


def test_a_key_in_its_last_second_gives_none() -> None:
    key = issue_key(expires_at=timezone.now() + timedelta(hours=1))
    principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key.secret), remote_address=None)
    object.__setattr__(principal, "expires_at", timezone.now() + timedelta(milliseconds=1))
    with pytest.raises(AuthenticationFailed):
        services.issue_tokens(principal=principal, remote_address=None, trace_id=TRACE)
    assert not IssuedToken.objects.exists()


def test_a_token_and_a_console_session_give_none() -> None:
    principal = show(issue_tokens().access)
    for other in (principal, get_account_principal(account=create_service())):
        with pytest.raises(AccessDenied):
            services.issue_tokens(principal=other, remote_address=None, trace_id=TRACE)


def test_nothing_of_a_tokens_text_is_shown_or_stored(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pair = refresh(issue_tokens().refresh)
    show(pair.access)
    services.revoke_token(token=pair.refresh, trace_id=TRACE)
    stored = repr(list(IssuedToken.objects.values())) + repr(list(AuditEvent.objects.values()))
    for text in (pair.access, pair.refresh):
        for shown in (repr(pair), stored, caplog.text):
            assert text not in shown
            assert text.rpartition(".")[2] not in shown


# Showing


def test_showing_an_access_token_costs_two_queries() -> None:
    pair = issue_tokens()
    show(pair.access)
    with capture_queries() as queries:
        show(pair.access)
    assert len(queries) == 2


def sign(payload: dict[str, Any], *, key: Any = None, headers: dict[str, Any] | None = None) -> str:
    own = get_keyring().get_signing_key(KeyPurpose.JWT)
    return jwt.encode(payload, key or own.private_key, algorithm="EdDSA", headers=headers or {"kid": own.id})


def make_forged(token: str) -> str:
    return sign(read(token), key=Ed25519PrivateKey.generate())


def make_unnamed(token: str) -> str:
    own = get_keyring().get_signing_key(KeyPurpose.JWT)
    return jwt.encode(read(token), own.private_key, algorithm="EdDSA")


def make_otherwise_named(token: str) -> str:
    return sign(read(token), headers={"kid": "0" * 16})


def make_unsigned(token: str) -> str:
    own = get_keyring().get_signing_key(KeyPurpose.JWT)
    return jwt.encode(read(token), "", algorithm="none", headers={"kid": own.id})


def make_symmetric(token: str) -> str:
    """Signed by HMAC with the public key, for who believes the token's own algorithm."""
    own = get_keyring().get_signing_key(KeyPurpose.JWT)
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": own.id}).encode()).rstrip(b"=")
    body = token.split(".")[1].encode()
    mac = hmac.digest(own.private_key.public_key().public_bytes_raw(), head + b"." + body, "sha256")
    return b".".join([head, body, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()


def make_another_accounts(token: str) -> str:
    return sign({**read(token), "sub": str(create_service().id)})


def make_unknown(token: str) -> str:
    return sign({**read(token), "jti": str(uuid7())})


def make_endless(token: str) -> str:
    return sign({key: value for key, value in read(token).items() if key != "exp"})


def make_expired(token: str) -> str:
    return sign({**read(token), "exp": int(timezone.now().timestamp()) - 1})


def make_access_of_refresh(token: str) -> str:
    """A refresh token's id, in a token that says it is an access token."""
    other = issue_tokens()
    return sign({**read(other.refresh), "token_type": "access"})


def make_altered(token: str) -> str:
    head, body, signature = token.split(".")
    return f"{head}.{body[:-2]}AA.{signature}"


def make_deep(token: str) -> str:
    head = base64.urlsafe_b64encode(b'{"kid":' + b"[" * 2_500).rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}.AAAA"


FORGERIES: list[Callable[[str], str]] = [
    make_forged,
    make_unnamed,
    make_otherwise_named,
    make_unsigned,
    make_symmetric,
    make_another_accounts,
    make_unknown,
    make_endless,
    make_expired,
    make_access_of_refresh,
    make_altered,
    make_deep,
    lambda _: "",
    lambda _: "..",
    lambda _: "a.b.c",
    lambda token: f"{token} ",
    lambda _: "ünïcode",
    lambda _: "\ud800",
]


@pytest.mark.parametrize("make", FORGERIES)
def test_what_is_not_our_token_is_refused_alike(make: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pair = issue_tokens()
    token = make(pair.access)
    with capture_queries() as queries:
        assert get_refusal(lambda: show(token)) == "security.authentication_failed"
    assert len(queries) == 2
    assert not token.strip() or token.strip() not in caplog.text
    renewal = make(pair.refresh)
    assert get_refusal(lambda: refresh(renewal)) == "security.authentication_failed"
    for text in (token, renewal):
        assert services.revoke_token(token=text, trace_id=TRACE) is False
    show(pair.access)
    refresh(pair.refresh)


def test_one_kind_of_token_is_not_the_other() -> None:
    pair = issue_tokens()
    assert get_refusal(lambda: show(pair.refresh)) == "security.authentication_failed"
    assert get_refusal(lambda: refresh(pair.access)) == "security.authentication_failed"


def test_a_token_that_was_found_good_still_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = issue_tokens()
    show(pair.access)
    later = pair.access_expires_at
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert get_refusal(lambda: show(pair.access)) == "security.authentication_failed"


def test_a_token_of_a_node_whose_clock_is_ahead_is_taken() -> None:
    pair = issue_tokens()
    show(sign({**read(pair.access), "iat": int(timezone.now().timestamp()) + 30}))


def test_the_last_use_is_recorded() -> None:
    pair = issue_tokens()
    show(pair.access)
    row = IssuedToken.objects.get(id=pair.access_jti)
    assert row.last_used_at is not None


def disable(account: Account) -> None:
    account.is_active = False
    services.save_account(account=account)


def change_password(account: Account) -> None:
    services.set_password(account=account, password="another horse battery")


def take_password_past_the_services(account: Account) -> None:
    Account.objects.filter(pk=account.pk).update(password="!")


def revoke_keys(account: Account) -> None:
    for api_key in account.api_keys.all():
        services.revoke_api_key(api_key=api_key)


def expire_keys(account: Account) -> None:
    past = timezone.now() - timedelta(seconds=1)
    ApiKey.objects.filter(account=account).update(created_at=past - timedelta(days=1), expires_at=past)


@pytest.mark.parametrize("end", [disable, revoke_keys, expire_keys])
def test_a_keys_tokens_are_worthless_at_once_without_it(end: Callable[[Account], None]) -> None:
    key = issue_key()
    pair = issue_tokens(key=key)
    show(pair.access)
    end(Account.objects.get(pk=key.api_key.account_id))
    assert get_refusal(lambda: show(pair.access)) == "security.authentication_failed"
    assert get_refusal(lambda: refresh(pair.refresh)) == "security.authentication_failed"


@pytest.mark.parametrize("end", [disable, change_password, take_password_past_the_services])
def test_a_passwords_tokens_are_worthless_at_once_without_it(end: Callable[[Account], None]) -> None:
    person, pair = sign_in()
    assert show(pair.access).id == person.id
    end(person)
    assert get_refusal(lambda: show(pair.access)) == "security.authentication_failed"
    assert get_refusal(lambda: refresh(pair.refresh)) == "security.authentication_failed"


# Renewing


def test_a_refresh_token_makes_the_next_pair_of_its_family() -> None:
    first = issue_tokens(key=issue_key(scopes=["tools.view"]))
    second = refresh(first.refresh)
    third = refresh(second.refresh)
    assert first.family_id == second.family_id == third.family_id
    assert len({first.access, second.access, third.access, first.refresh, second.refresh, third.refresh}) == 6
    assert show(third.access).scopes == ("tools.view",)
    # Short as they are, access tokens of before last as long as they were to.
    show(first.access)


def test_a_spent_token_that_comes_again_soon_gets_nothing_and_harms_nothing() -> None:
    first = issue_tokens()
    second = refresh(first.refresh)
    assert get_refusal(lambda: refresh(first.refresh)) == "security.token_revoked"
    show(second.access)
    refresh(second.refresh)


def test_a_spent_token_that_comes_again_later_revokes_its_family(caplog: pytest.LogCaptureFixture) -> None:
    first = issue_tokens()
    other = issue_tokens()
    second = refresh(first.refresh)
    make_spent_long_ago(first.refresh)
    mark = get_revocation_mark()
    assert get_refusal(lambda: refresh(first.refresh)) == "security.token_revoked"
    assert get_revocation_mark() > mark
    for pair in (first, second):
        assert get_refusal(lambda pair=pair: show(pair.access)) == "security.authentication_failed"  # type: ignore[misc]
        assert get_refusal(lambda pair=pair: refresh(pair.refresh)) == "security.token_revoked"  # type: ignore[misc]
    show(other.access)
    assert "came again" in caplog.text
    assert list_audited() == [
        ("tokens.issue", "issued"),
        ("tokens.issue", "issued"),
        ("tokens.refresh", "refreshed"),
        ("tokens.reuse", "revoked"),
    ]
    event = AuditEvent.objects.get(action="tokens.reuse")
    assert (event.resource_kind, event.resource_name) == ("token_family", str(first.family_id))
    assert json.loads(event.data_json)["address"] == ADDRESS


@pytest.mark.django_db(transaction=True)
def test_of_eight_uses_at_once_one_makes_a_pair() -> None:
    first = issue_tokens()

    def use() -> IssuedTokens | str:
        try:
            return refresh(first.refresh)
        except MCPError as error:
            return error.code

    outcomes = run_at_once(use, times=8)
    pairs = [outcome for outcome in outcomes if isinstance(outcome, IssuedTokens)]
    assert len(pairs) == 1
    assert sorted(code for code in outcomes if isinstance(code, str)) == ["security.token_revoked"] * 7
    assert IssuedToken.objects.filter(kind="refresh", spent_at=None).count() == 1
    show(pairs[0].access)
    refresh(pairs[0].refresh)


@pytest.mark.django_db(transaction=True)
def test_no_token_gets_away_while_its_family_is_revoked() -> None:
    for _ in range(5):
        first = issue_tokens()
        tokens = [first.refresh]

        def use(first: IssuedTokens = first, tokens: list[str] = tokens) -> object:
            if services.revoke_token(token=first.access, trace_id=TRACE):
                return None
            try:
                pair = refresh(tokens[-1])
            except MCPError:
                return None
            tokens.append(pair.refresh)
            return pair

        run_at_once(use, times=4)
        assert not IssuedToken.objects.filter(family_id=first.family_id, revoked_at=None).exists()


# Revoking


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_either_token_revokes_the_whole_family_once(kind: str) -> None:
    first = issue_tokens()
    second = refresh(first.refresh)
    mark = get_revocation_mark()
    assert services.revoke_token(token=getattr(second, kind), trace_id=TRACE) is True
    assert get_revocation_mark() == mark + 1
    assert services.revoke_token(token=second.refresh, trace_id=TRACE) is False
    for pair in (first, second):
        assert get_refusal(lambda pair=pair: show(pair.access)) == "security.authentication_failed"  # type: ignore[misc]
    assert get_refusal(lambda: refresh(second.refresh)) == "security.token_revoked"
    assert list_audited() == [
        ("tokens.issue", "issued"),
        ("tokens.refresh", "refreshed"),
        ("tokens.revoke", "revoked"),
    ]
    event = AuditEvent.objects.get(action="tokens.revoke")
    assert event.actor_id == IssuedToken.objects.get(id=first.access_jti).account_id
    assert event.trace_id == TRACE


# What the database itself refuses, and what is forgotten


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "sliding"},
        {"kind": "access", "spent_at": datetime(2026, 1, 1, tzinfo=UTC)},
        {"kind": "access", "expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"kind": "access", "password_stamp": "s"},
        {"kind": "access", "api_key": None},
        {"kind": "refresh"},
    ],
)
def test_a_token_that_breaks_a_rule_is_not_stored(fields: dict[str, Any]) -> None:
    key = issue_key()
    pair = issue_tokens(key=key)
    common = {
        "family_id": pair.family_id,
        "account": key.api_key.account,
        "api_key": key.api_key,
        "expires_at": timezone.now() + timedelta(hours=1),
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        IssuedToken.objects.create(**{**common, **fields})


def test_tokens_that_ended_long_ago_are_forgotten() -> None:
    old, fresh = issue_tokens(), issue_tokens()
    IssuedToken.objects.filter(family_id=old.family_id).update(
        issued_at=timezone.now() - timedelta(days=30), expires_at=timezone.now() - timedelta(days=8)
    )
    tasks.purge_credentials()
    assert set(IssuedToken.objects.values_list("family_id", flat=True)) == {fresh.family_id}
