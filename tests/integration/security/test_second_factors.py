"""The second factor at every door: set up, asked for, used once, counted, demanded, reset."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import msgspec
import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse

from protocol.domain.messages import JwtCredentials, PasswordCredentials
from protocol.errors import AuthenticationFailed
from protocol.ports import get_authenticator
from security import services
from security.domain.lockout import PAIR_ALLOWANCE
from security.domain.second_factor import RECOVERY_CODES
from security.errors import LockedOut
from security.models import Account, AuditEvent, AuthenticatorApp, LoginFailure, RecoveryCode, RevocationMark
from security.selectors import get_account_principal
from tests.factories import PASSWORD, create_operator, create_person, create_service
from tests.second_factors import Phone, enrol, forget_last_step
from tests.threads import run_at_once

pytestmark = pytest.mark.django_db

ADDRESS = "192.0.2.7"


@pytest.fixture(autouse=True)
def _cheap_hasher(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def boss() -> Account:
    return create_operator(username="boss", password=PASSWORD)


@pytest.fixture
def phone(boss: Account) -> Phone:
    return enrol(boss)


def require(settings: Any, who: str) -> None:
    """The setting, for this test."""
    settings.MCP = msgspec.structs.replace(settings.MCP, require_second_factor=who)


def show(username: str = "boss", *, password: str = PASSWORD, code: str | None = None) -> Any:
    """The protocol's method."""
    credentials = PasswordCredentials(username=username, password=password, code=code)
    return get_authenticator().authenticate(credentials=credentials, remote_address=ADDRESS)


def sign_in(client: Client, *, password: str = PASSWORD, username: str = "boss") -> Any:
    """The console's first step."""
    form = {"username": username, "password": password}
    return client.post(reverse("admin:login"), form, REMOTE_ADDR=ADDRESS)


def give(client: Client, code: str) -> Any:
    """The console's second step."""
    return client.post(reverse("admin:second_factor"), {"code": code}, REMOTE_ADDR=ADDRESS)


def is_in(client: Client) -> bool:
    return client.get(reverse("admin:index")).status_code == 200


def get_errors(response: Any) -> list[str]:
    assert response.status_code == 200
    return [error.code for error in response.context["errors"].as_data()]


# The sockets and REST


def test_the_password_alone_does_not_do(phone: Phone) -> None:
    for code in (None, "", "000000", phone.show()[:-1]):
        with pytest.raises(AuthenticationFailed) as caught:
            show(code=code)
        assert caught.value.message == AuthenticationFailed.get_default_message()
        assert not caught.value.details
        LoginFailure.objects.all().delete()
    assert show(code=phone.show()).name == "boss"


def test_the_code_alone_does_not_do_and_is_not_used_up(phone: Phone) -> None:
    with pytest.raises(AuthenticationFailed):
        show(password="wrong", code=phone.show())
    show(code=phone.show())


def test_a_code_counts_once(phone: Phone) -> None:
    code = phone.show()
    show(code=code)
    with pytest.raises(AuthenticationFailed):
        show(code=code)
    phone.ahead = -1
    with pytest.raises(AuthenticationFailed):
        show(code=phone.show())
    phone.ahead = 1
    show(code=phone.show())


@pytest.mark.django_db(transaction=True)
def test_of_eight_who_show_one_code_at_once_one_is_let_in() -> None:
    create_operator(username="boss", password=PASSWORD)
    account = Account.objects.get(username="boss")
    phone = enrol(account)
    for code in (phone.show(), phone.recovery_codes[0]):
        LoginFailure.objects.all().delete()

        def attempt(code: str = code) -> bool:
            try:
                show(code=code)
            except (AuthenticationFailed, LockedOut):
                return False
            return True

        assert run_at_once(attempt, times=4).count(True) == 1


def test_a_recovery_code_counts_once_and_is_on_record(boss: Account, phone: Phone) -> None:
    assert len(set(phone.recovery_codes)) == RECOVERY_CODES
    show(code=phone.recovery_codes[0].upper())
    with pytest.raises(AuthenticationFailed):
        show(code=phone.recovery_codes[0])
    assert RecoveryCode.objects.filter(account=boss).count() == RECOVERY_CODES - 1
    assert AuditEvent.objects.filter(action="second_factors.use_recovery_code", resource_name="boss").count() == 1
    other = enrol(create_person(username="other", password=PASSWORD))
    with pytest.raises(AuthenticationFailed):
        show(code=other.recovery_codes[0])


def test_wrong_codes_are_counted_with_wrong_passwords(phone: Phone) -> None:
    for _ in range(PAIR_ALLOWANCE.attempts):
        with pytest.raises(AuthenticationFailed):
            show(code="000000")
    with pytest.raises(LockedOut):
        show(code=phone.show())


def test_whoever_asks_django_shows_the_code_too(phone: Phone) -> None:
    request = RequestFactory().post("/", REMOTE_ADDR=ADDRESS)
    assert authenticate(request, username="boss", password=PASSWORD) is None
    assert authenticate(request, username="boss", password=PASSWORD, code=phone.show()) is not None


@pytest.mark.parametrize(
    ("who", "of_staff", "of_others"), [("none", True, True), ("staff", False, True), ("everyone", False, False)]
)
def test_the_setting_demands_one(settings: Any, boss: Account, who: str, of_staff: bool, of_others: bool) -> None:
    create_person(username="anna", password=PASSWORD)
    require(settings, who)
    for username, is_let_in in (("boss", of_staff), ("anna", of_others)):
        if is_let_in:
            show(username)
        else:
            with pytest.raises(AuthenticationFailed):
                show(username)


def test_what_the_password_alone_had_opened_ends(boss: Account) -> None:
    principal = show()
    tokens = services.issue_tokens(principal=principal, remote_address=ADDRESS, trace_id="")
    mark = RevocationMark.objects.values_list("value", flat=True).first() or 0
    phone = enrol(boss)
    assert RevocationMark.objects.values_list("value", flat=True).get() > mark
    assert get_authenticator().renew([principal]) == [None]
    with pytest.raises(AuthenticationFailed):
        get_authenticator().authenticate(credentials=JwtCredentials(tokens.access), remote_address=ADDRESS)
    assert get_authenticator().renew([again := show(code=phone.show())]) != [None]
    services.reset_second_factor(account=boss, principal=None)
    assert get_authenticator().renew([again]) == [None]


# What is kept


def test_the_secret_is_sealed_and_bound_to_its_row(boss: Account, phone: Phone) -> None:
    app = AuthenticatorApp.objects.get(account=boss)
    assert app.secret == phone.secret
    assert app.secret_key_id
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM security_authenticatorapp")
        assert phone.secret not in bytes(cursor.fetchone()[0])
    other = create_person(username="other", password=PASSWORD)
    enrol(other)
    # Somebody who can write to the database gives an account another's app.
    AuthenticatorApp.objects.filter(account=other).update(
        secret=AuthenticatorApp.objects.get(account=boss).__dict__["secret"], secret_key_id=app.secret_key_id
    )
    with pytest.raises(Exception, match="under key"):
        show("other", code=phone.show())


def test_no_recovery_code_is_in_the_database(phone: Phone) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT code_hash FROM security_recoverycode")
        stored = " ".join(row[0] for row in cursor.fetchall())
    for code in phone.recovery_codes:
        assert code not in stored
        assert code.replace("-", "") not in stored


def test_a_service_has_none() -> None:
    with pytest.raises(ValidationError):
        services.begin_enrolment(account=create_service())


def test_nobody_confirms_the_app_that_another_was_shown(boss: Account) -> None:
    first = services.begin_enrolment(account=boss)
    second = services.begin_enrolment(account=boss)
    assert services.get_enrolment(account=boss, app_id=first) is None
    assert services.get_enrolment(account=boss, app_id=second) is not None


# The console


def test_the_console_asks_for_the_code_after_the_password(client: Client, phone: Phone) -> None:
    response = sign_in(client)
    assert (response.status_code, response.url) == (302, reverse("admin:second_factor"))
    assert not is_in(client)
    between = client.session.session_key
    assert get_errors(give(client, "000000")) == ["wrong_code"]
    assert not is_in(client)
    response = give(client, phone.show())
    assert (response.status_code, response.url) == (302, reverse("admin:index"))
    assert is_in(client)
    assert client.session.session_key != between


def test_the_second_step_without_the_first_leads_to_it(client: Client, phone: Phone) -> None:
    assert give(client, phone.show()).url == reverse("admin:login")
    sign_in(client, password="wrong")
    assert give(client, phone.show()).url == reverse("admin:login")
    assert not is_in(client)


def test_the_second_step_must_come_soon(client: Client, phone: Phone) -> None:
    sign_in(client)
    session = client.session
    session["pending_sign_in"] = {**session["pending_sign_in"], "until": 0}
    session.save()
    assert give(client, phone.show()).url == reverse("admin:login")


@pytest.mark.parametrize("change", ["password", "inactive", "not staff"])
def test_a_change_between_the_steps_ends_the_sign_in(client: Client, boss: Account, phone: Phone, change: str) -> None:
    sign_in(client)
    boss.refresh_from_db()
    if change == "password":
        services.set_password(account=boss, password="another good horse")
    elif change == "inactive":
        boss.is_active = False
    else:
        boss.is_staff = boss.is_superuser = False
    services.save_account(account=boss)
    assert give(client, phone.show()).url == reverse("admin:login")
    assert not is_in(client)


def test_the_console_counts_codes_and_a_right_password_forgets_none(client: Client, phone: Phone) -> None:
    for _ in range(PAIR_ALLOWANCE.attempts):
        assert sign_in(client).status_code == 302
        assert get_errors(give(client, "000000")) == ["wrong_code"]
    assert [error.code for error in sign_in(client).context["form"].non_field_errors().as_data()] == ["locked_out"]
    assert get_errors(give(client, phone.show())) == ["locked_out"]
    with pytest.raises(LockedOut):
        show(code=phone.show())


def test_a_right_code_forgets_what_was_wrong_before(client: Client, phone: Phone) -> None:
    for _ in range(3):
        sign_in(client, password="wrong")
    sign_in(client)
    give(client, phone.show())
    assert is_in(client)
    assert not LoginFailure.objects.filter(key__contains=" ").exists()


def test_who_must_have_one_is_led_to_set_it_up_and_can_do_nothing_else(
    client: Client, boss: Account, settings: Any
) -> None:
    require(settings, "staff")
    response = sign_in(client)
    assert response.url == reverse("admin:second_factor_begin")
    assert not is_in(client)
    assert client.get(reverse("admin:second_factors")).status_code == 302
    assert "Authenticator app" in client.get(response.url).content.decode()
    page = client.post(reverse("admin:second_factor_app")).content.decode()
    assert "data:image/svg+xml" in page
    assert not is_in(client)
    wrong = client.post(reverse("admin:second_factor_app"), {"code": "000000"})
    assert wrong.context["form"].errors.as_data()["code"][0].code == "wrong_code"
    assert not is_in(client)
    secret = AuthenticatorApp.objects.get(account=boss).secret
    codes = client.post(reverse("admin:second_factor_app"), {"code": Phone(secret=secret).show()})
    assert len(re.findall(r"<code class=\"select-all\">", codes.content.decode())) == RECOVERY_CODES
    assert "no-store" in codes.headers["Cache-Control"]
    assert is_in(client)
    assert AuditEvent.objects.filter(action="second_factors.add", resource_name="boss").count() == 1


def test_turning_the_setting_on_signs_out_who_has_none(console: Client, settings: Any) -> None:
    assert is_in(console)
    require(settings, "staff")
    assert not is_in(console)


def come_in(client: Client, phone: Phone) -> None:
    sign_in(client)
    assert give(client, phone.show()).status_code == 302


def test_setting_one_up_ends_other_sign_ins(client: Client, boss: Account) -> None:
    other = Client()
    sign_in(client)
    sign_in(other)
    assert is_in(client)
    client.post(reverse("admin:second_factor_app"))
    secret = AuthenticatorApp.objects.get(account=boss).secret
    client.post(reverse("admin:second_factor_app"), {"code": Phone(secret=secret).show()})
    assert is_in(client)
    assert not is_in(other)


def test_factors_are_changed_only_soon_after_a_sign_in(client: Client, boss: Account, phone: Phone) -> None:
    come_in(client, phone)
    session = client.session
    session["fresh_at"] -= 601
    session.save()
    for act in ("remove-app", "make-codes"):
        response: Any = client.post(reverse("admin:second_factors"), {"act": act})
        assert response.url.startswith(reverse("admin:login") + "?again=1")
    again: Any = client.post(reverse("admin:second_factor_app"))
    assert again.url.startswith(reverse("admin:login") + "?again=1")
    boss.refresh_from_db()
    assert boss.has_second_factor
    # Who is signed in already gets the form all the same.
    assert client.get(reverse("admin:login"), {"again": "1"}).status_code == 200


def test_the_last_factor_goes_with_its_recovery_codes(client: Client, boss: Account, phone: Phone) -> None:
    come_in(client, phone)
    assert client.get(reverse("admin:second_factors")).context["codes_left"] == RECOVERY_CODES
    client.post(reverse("admin:second_factors"), {"act": "remove-app"})
    assert is_in(client)
    boss.refresh_from_db()
    assert not boss.has_second_factor
    assert not RecoveryCode.objects.exists()
    show()


def test_taking_away_a_demanded_factor_signs_out(client: Client, boss: Account, phone: Phone, settings: Any) -> None:
    require(settings, "everyone")
    come_in(client, phone)
    client.post(reverse("admin:second_factors"), {"act": "remove-app"})
    assert not is_in(client)
    assert sign_in(client).url == reverse("admin:second_factor_begin")


def test_new_recovery_codes_replace_the_old(client: Client, boss: Account, phone: Phone) -> None:
    come_in(client, phone)
    page = client.post(reverse("admin:second_factors"), {"act": "make-codes"}).content.decode()
    codes = re.findall(r"<code class=\"select-all\">([a-z0-9-]+)</code>", page)
    assert len(codes) == RECOVERY_CODES
    show(code=codes[0])
    with pytest.raises(AuthenticationFailed):
        show(code=phone.recovery_codes[0])


def reset_by_command(boss: Account) -> None:
    out = StringIO()
    call_command("reset_second_factor", "BOSS", stdout=out)
    assert "no second factor any more" in out.getvalue()
    call_command("reset_second_factor", "boss", stdout=out)
    assert "had no second factor" in out.getvalue()


def reset_in_console(boss: Account) -> None:
    browser = Client()
    browser.force_login(create_operator(username="helper"))
    address = reverse("admin:security_account_reset_second_factor", args=[boss.pk])
    assert "Be sure of who asks" in browser.get(address).content.decode()
    browser.post(address, {"_form_submitted": "on"})
    event = AuditEvent.objects.get(action="second_factors.reset")
    assert event.actor_name == "helper"


@pytest.mark.parametrize("reset", [reset_by_command, reset_in_console])
def test_a_lost_factor_is_reset(boss: Account, phone: Phone, reset: Callable[[Account], None]) -> None:
    reset(boss)
    boss.refresh_from_db()
    assert not boss.has_second_factor
    assert not AuthenticatorApp.objects.exists()
    assert not RecoveryCode.objects.exists()
    assert AuditEvent.objects.filter(action="second_factors.reset", resource_name="boss").count() == 1
    show()


def test_only_superusers_reset_anothers(client: Client, boss: Account, phone: Phone) -> None:
    viewer = create_person(username="viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__in=["view_account", "change_account"]))
    client.force_login(viewer)
    page = client.get(reverse("admin:security_account_change", args=[boss.pk]))
    assert page.status_code == 200
    assert "Reset second factor" not in page.content.decode()
    client.post(reverse("admin:security_account_reset_second_factor", args=[boss.pk]), {"_form_submitted": "on"})
    boss.refresh_from_db()
    assert boss.has_second_factor


def test_codes_and_secrets_are_in_no_log(
    client: Client, boss: Account, phone: Phone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    code = phone.show()
    sign_in(client)
    give(client, "314159")
    give(client, code)
    forget_last_step(boss)
    with pytest.raises(AuthenticationFailed):
        show(code=f"{code}9")
    show(code=phone.recovery_codes[1])
    for secret in (code, "314159", phone.recovery_codes[1], PASSWORD):
        assert secret not in caplog.text
    assert get_account_principal(account=boss).name == "boss"
