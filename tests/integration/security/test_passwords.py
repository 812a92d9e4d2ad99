"""A person's password on a socket and in the console: same time, same words, and a lock after too many wrong ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.db import connections
from django.db.models import F
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from protocol.domain.messages import ApiKeyCredentials, Authentication, JwtCredentials, PasswordCredentials
from protocol.errors import AuthenticationFailed
from protocol.ports import Principal, get_authenticator
from security import services
from security.domain.authorization import AccountPrincipal
from security.domain.lockout import ADDRESS_ALLOWANCE, PAIR_ALLOWANCE
from security.errors import LockedOut
from security.models import Account, LoginFailure
from tests.factories import PASSWORD, create_operator, create_person, create_service, issue_key, issue_tokens
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db

ADDRESS, ELSEWHERE = "192.0.2.7", "192.0.2.8"


class CountingHasher(Argon2PasswordHasher):
    """Argon2 at its cheapest, which counts how often it was computed."""

    algorithm = "counting"
    time_cost, memory_cost, parallelism = 1, 8, 1
    computed = 0

    def encode(self, password: str, salt: str) -> str:
        type(self).computed += 1
        return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        type(self).computed += 1
        return super().verify(password, encoded)


@pytest.fixture(autouse=True)
def _cheap_hasher(settings: Any) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.CountingHasher"]


def show(username: str, password: str, *, address: str | None = ADDRESS) -> AccountPrincipal:
    credentials = PasswordCredentials(username=username, password=password)
    principal = get_authenticator().authenticate(credentials=credentials, remote_address=address)
    assert isinstance(principal, AccountPrincipal)
    return principal


def fail(username: str, *, times: int = 1, address: str | None = ADDRESS) -> None:
    for _ in range(times):
        with pytest.raises(AuthenticationFailed):
            show(username, "wrong", address=address)


def pass_time(passed: timedelta) -> None:
    """As if it had passed: what counts is how far ahead the counters lie."""
    LoginFailure.objects.update(clear_at=F("clear_at") - passed)


# Who it is


def test_a_person_comes_in_whatever_the_case_of_the_name() -> None:
    person = create_person(username="Anna", password=PASSWORD, roles=["viewer"])
    principal = show("anna", PASSWORD)
    assert (principal.id, principal.name, principal.roles) == (person.id, "Anna", ("viewer",))
    assert principal.expires_at is None
    assert principal.credential_id == show("ANNA", PASSWORD).credential_id
    other = create_person(password=PASSWORD)
    assert show(other.username, PASSWORD).credential_id != principal.credential_id
    assert PASSWORD not in repr(principal)
    assert principal.password_stamp not in repr(principal)


def make_wrong() -> tuple[str, str]:
    return create_person(password=PASSWORD).username, "another horse"


def make_unknown() -> tuple[str, str]:
    return "nobody", PASSWORD


def make_inactive() -> tuple[str, str]:
    person = create_person(password=PASSWORD)
    person.is_active = False
    services.save_account(account=person)
    return person.username, PASSWORD


def make_without() -> tuple[str, str]:
    return create_person().username, PASSWORD


def make_service() -> tuple[str, str]:
    return create_service().username, ""


def make_strange() -> tuple[str, str]:
    return "a\x00b\ud800", "\ud800"


REFUSED = [make_wrong, make_unknown, make_inactive, make_without, make_service, make_strange]


@pytest.mark.parametrize("make", REFUSED)
def test_every_refusal_takes_one_hash_and_says_the_same(
    make: Callable[[], tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    username, password = make()
    caplog.set_level(logging.DEBUG)
    before = CountingHasher.computed
    with pytest.raises(AuthenticationFailed) as caught:
        show(username, password)
    assert CountingHasher.computed == before + 1
    assert caught.value.message == AuthenticationFailed.get_default_message()
    assert not caught.value.details
    assert username not in caplog.text
    assert not password or password not in caplog.text


# The lock


def test_the_sixth_wrong_password_of_a_name_at_an_address_is_not_looked_at() -> None:
    username = create_person(password=PASSWORD).username
    fail(username, times=PAIR_ALLOWANCE.attempts)
    before = CountingHasher.computed
    with pytest.raises(LockedOut) as caught:
        show(username.upper(), PASSWORD)
    assert CountingHasher.computed == before
    assert caught.value.retryable
    assert caught.value.retry_after_ms is not None
    assert 0 < caught.value.retry_after_ms <= PAIR_ALLOWANCE.step / timedelta(milliseconds=1)
    # Neither another name nor another address is locked.
    show(create_person(username="other", password=PASSWORD).username, PASSWORD)
    show(username, PASSWORD, address=ELSEWHERE)


def test_a_name_that_nobody_has_is_locked_alike() -> None:
    fail("nobody", times=PAIR_ALLOWANCE.attempts)
    with pytest.raises(LockedOut):
        show("nobody", PASSWORD)


def test_an_address_is_locked_whatever_the_names() -> None:
    for number in range(ADDRESS_ALLOWANCE.attempts):
        fail(f"name-{number}")
    username = create_person(password=PASSWORD).username
    with pytest.raises(LockedOut) as caught:
        show(username, PASSWORD)
    assert caught.value.retry_after_ms is not None
    assert caught.value.retry_after_ms <= ADDRESS_ALLOWANCE.step / timedelta(milliseconds=1)
    show(username, PASSWORD, address=ELSEWHERE)


@pytest.mark.parametrize("address", ["2001:db8:1:2::1", None])
def test_every_kind_of_address_is_counted(address: str | None) -> None:
    fail("nobody", times=PAIR_ALLOWANCE.attempts, address=address)
    with pytest.raises(LockedOut):
        show("nobody", PASSWORD, address="2001:db8:1:2:ffff::" if address else None)


def test_the_lock_decays_and_says_truly_when() -> None:
    username = create_person(password=PASSWORD).username
    fail(username, times=PAIR_ALLOWANCE.attempts)
    with pytest.raises(LockedOut) as caught:
        show(username, "wrong")
    assert caught.value.retry_after_ms is not None
    pass_time(timedelta(milliseconds=caught.value.retry_after_ms))
    fail(username)
    with pytest.raises(LockedOut):
        show(username, PASSWORD)
    pass_time(PAIR_ALLOWANCE.step)
    show(username, PASSWORD)


def test_a_right_password_forgets_the_wrong_ones_of_its_name_but_not_those_of_its_address() -> None:
    username = create_person(password=PASSWORD).username
    for _ in range(3):
        fail(username, times=PAIR_ALLOWANCE.attempts - 1)
        show(username, PASSWORD)
    (counter,) = LoginFailure.objects.all()
    assert counter.key == ADDRESS
    wrong = 3 * (PAIR_ALLOWANCE.attempts - 1)
    ahead = counter.clear_at - timezone.now()
    assert (wrong - 1) * ADDRESS_ALLOWANCE.step < ahead <= wrong * ADDRESS_ALLOWANCE.step


def test_who_is_locked_out_is_not_locked_out_longer_by_trying() -> None:
    fail("nobody", times=PAIR_ALLOWANCE.attempts)
    before = list(LoginFailure.objects.order_by("key").values_list("clear_at", flat=True))
    for _ in range(3):
        with pytest.raises(LockedOut):
            show("nobody", "wrong")
    assert list(LoginFailure.objects.order_by("key").values_list("clear_at", flat=True)) == before


def test_keys_and_tokens_lock_nobody_out_and_are_not_locked_out() -> None:
    def show_other(credentials: Authentication) -> Principal:
        return get_authenticator().authenticate(credentials=credentials, remote_address=ADDRESS)

    for wrong in (ApiKeyCredentials("mcp_" + "A" * 43), JwtCredentials("a.b.c")):
        for _ in range(ADDRESS_ALLOWANCE.attempts + 1):
            with pytest.raises(AuthenticationFailed):
                show_other(wrong)
    assert not LoginFailure.objects.exists()
    key = issue_key()
    fail("nobody", times=PAIR_ALLOWANCE.attempts)
    show_other(ApiKeyCredentials(key.secret))
    show_other(JwtCredentials(issue_tokens(key=key).access))


@pytest.mark.django_db(transaction=True)
def test_of_eight_guesses_at_once_five_are_looked_at() -> None:
    username = create_person(password=PASSWORD).username

    def guess() -> str:
        try:
            show(username, "wrong")
        except (AuthenticationFailed, LockedOut) as error:
            return error.code
        raise AssertionError("a wrong password was taken")

    before = CountingHasher.computed
    codes = run_at_once(guess, times=8)
    assert codes.count("security.authentication_failed") == PAIR_ALLOWANCE.attempts
    assert codes.count("security.locked_out") == 8 - PAIR_ALLOWANCE.attempts
    assert CountingHasher.computed - before == PAIR_ALLOWANCE.attempts


def test_counters_that_count_nothing_are_forgotten() -> None:
    fail("nobody")
    fail("somebody", address=ELSEWHERE)
    LoginFailure.objects.filter(key__startswith=ADDRESS).update(clear_at=timezone.now() - timedelta(seconds=1))
    assert services.purge_login_failures() == 2
    assert {key.split()[0] for key in LoginFailure.objects.values_list("key", flat=True)} == {ELSEWHERE}


# The console


def sign_in(client: Client, username: str, password: str, *, address: str = ADDRESS) -> Any:
    return client.post(
        reverse("admin:login"), {"username": username, "password": password}, REMOTE_ADDR=address, follow=False
    )


def get_errors(response: Any) -> list[str]:
    assert response.status_code == 200
    errors: list[str] = [error.code for error in response.context["form"].non_field_errors().as_data()]
    return errors


def test_the_console_lets_in_and_counts_with_the_sockets(client: Client) -> None:
    create_operator(username="boss", password=PASSWORD)
    fail("boss", times=PAIR_ALLOWANCE.attempts - 2)
    for _ in range(2):
        assert get_errors(sign_in(client, "boss", "wrong")) == ["invalid_login"]
    response = sign_in(client, "boss", PASSWORD)
    assert get_errors(response) == ["locked_out"]
    assert "Try again in 3 min." in response.content.decode()
    with pytest.raises(LockedOut):
        show("boss", PASSWORD)
    assert sign_in(client, "boss", PASSWORD, address=ELSEWHERE).status_code == 302
    assert client.get(reverse("admin:index")).status_code == 200


def test_a_service_cannot_sign_in_to_the_console(client: Client) -> None:
    assert get_errors(sign_in(client, create_service().username, "")) == []
    assert get_errors(sign_in(client, create_service().username, "x")) == ["invalid_login"]


def test_whoever_asks_django_is_counted() -> None:
    username = create_person(password=PASSWORD).username
    request = RequestFactory().post("/", REMOTE_ADDR=ADDRESS)
    assert authenticate(request, username=username, password=PASSWORD) == Account.objects.get(username=username)
    for _ in range(PAIR_ALLOWANCE.attempts):
        assert authenticate(request, username=username, password="wrong") is None
    with pytest.raises(LockedOut):
        authenticate(request, username=username, password=PASSWORD)
    assert authenticate(request, token="t") is None


@pytest.mark.django_db(transaction=True)
def test_asking_django_as_a_coroutine_is_counted_too() -> None:
    username = create_person(password=PASSWORD).username

    async def ask() -> None:
        for _ in range(PAIR_ALLOWANCE.attempts):
            assert await aauthenticate(username=username, password="wrong") is None
        with pytest.raises(LockedOut):
            await aauthenticate(username=username, password=PASSWORD)
        # The thread that was asked in keeps its connection else.
        await sync_to_async(connections.close_all)()

    asyncio.run(ask())
