"""Where a peer comes from, on the running product: no header says so, but a trusted proxy's ``X-Forwarded-For``.

Each door is asked by the same calls; what the address rules, the lock-out, the limits and the audit record took the
peer for is told.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import msgspec
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.e2e.conftest import Keys, make_keys
from tests.services import Product, run_product

pytestmark = [pytest.mark.xdist_group("proxies"), pytest.mark.own_web_server]

PEER = "127.0.0.1"
ALLOWED = "198.51.100.7"
"""From where alone the account of ``Keys.other`` may come."""
ELSEWHERE = "203.0.113.5"
PASSWORD = "a long proxied password"  # of accounts that only this test has
CONNECTIONS = 30
FORGED: list[dict[str, str]] = [
    {"X-Forwarded-For": ALLOWED},
    {"X-Forwarded-For": f"{ALLOWED}, {ALLOWED}"},
    {"Forwarded": f"for={ALLOWED};proto=https"},
    {"Forwarded": f'for="[::ffff:{ALLOWED}]:80"'},
    {"X-Real-IP": ALLOWED},
    {"X-Client-IP": ALLOWED},
    {"True-Client-IP": ALLOWED},
    {"X-Forwarded": ALLOWED},
]
SEEN_BY_A_PROXY: list[tuple[str, str]] = [
    (ALLOWED, ALLOWED),
    (f"{ELSEWHERE}, {ALLOWED}", ALLOWED),
    (f"{ALLOWED}, {ELSEWHERE}", ELSEWHERE),
    (f"{ALLOWED}, 127.0.0.9", ALLOWED),
    (f"rubbish, ::1::, {ALLOWED}", ALLOWED),
    (f"{ALLOWED}, rubbish", PEER),
    (f"{ALLOWED},", PEER),
    (f"{ALLOWED}:4711", ALLOWED),
    (f"::ffff:{ALLOWED}", ALLOWED),
    (f"[::ffff:{ALLOWED}]:443", ALLOWED),
    ("[2001:db8::7]:443", "2001:db8::7"),
    ("fe80::7%eth0", "fe80::7"),
    ("[fe80::7%25eth0]:443", "fe80::7"),
]
SECURE = {"X-Forwarded-Proto": "https"}

MAKE = f"""
from security import services
from security.models import Account, AddressRule
AddressRule.objects.create(
    effect="allow", network="{ALLOWED}/32", account=Account.objects.get(username="tests-other")
)
services.create_account(username="proxied", password="{PASSWORD}", is_staff=True, is_superuser=True)
"""
LOOK = """
import json
from protocol.models import Session
from security.models import AuditEvent
addresses = [
    json.loads(event.data_json).get("address")
    for event in AuditEvent.objects.filter(action__in=ACTIONS).order_by("at", "id")
]
print(json.dumps(sorted({str(address) for address in addresses})))
"""


@pytest.fixture(scope="module")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, Keys]]:
    """A product that trusts no proxy."""
    with run_product(tmp_path_factory.mktemp("direct") / "var", MCP_CONNECTIONS_PER_MINUTE=str(CONNECTIONS)) as product:
        yield product, set_up(product)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, Keys]]:
    """A product that trusts the proxies of this machine."""
    with run_product(
        tmp_path_factory.mktemp("proxied") / "var",
        MCP_TRUSTED_PROXIES="127.0.0.0/8",
        MCP_CONNECTIONS_PER_MINUTE=str(CONNECTIONS),
    ) as product:
        yield product, set_up(product)


def set_up(product: Product) -> Keys:
    keys = make_keys(product)
    made = product.manage("shell", "--no-imports", "-c", MAKE)
    assert made.returncode == 0, made.stderr
    return keys


def list_recorded(product: Product, *actions: str) -> list[str]:
    """The addresses that the audit record has of these actions."""
    told = product.manage("shell", "--no-imports", "-c", f"ACTIONS = {list(actions)!r}\n{LOOK}")
    assert told.returncode == 0, told.stderr
    found: list[str] = json.loads(told.stdout.splitlines()[-1])
    return found


def ask_rest(product: Product, key: str, headers: Mapping[str, str]) -> str:
    """``accepted``, or the code of the refusal."""
    answer = httpx2.get(
        f"{product.url}api/v1/tools/?limit=1", headers={"Authorization": f"Bearer {key}", **headers}, timeout=20
    )
    return "accepted" if answer.status_code == 200 else str(answer.json()["code"])


def ask_socket(product: Product, key: str, headers: Mapping[str, str]) -> str:
    """``accepted``, or the code of the refusal."""
    with connect(
        product.websocket_url,
        subprotocols=[Subprotocol("mcp.v1.json")],
        additional_headers=headers,
        proxy=None,
        open_timeout=20,
    ) as socket:

        def exchange(kind: str, payload: Any) -> Any:
            message = {"id": f"id-{kind}", "type": kind, "timestamp": "2026-01-01T00:00:00Z", "payload": payload}
            socket.send(msgspec.json.encode(message).decode())
            return msgspec.json.decode(socket.recv(timeout=20))

        exchange("handshake", {"protocol_versions": ["1.1"], "client": {"name": "proxied"}})
        answer = exchange("authentication", {"method": "api_key", "key": key})
        return "accepted" if answer["type"] == "authentication" else str(answer["payload"]["code"])


def ask_for_token(product: Product, username: str, headers: Mapping[str, str]) -> str:
    """What a wrong password comes to."""
    answer = httpx2.post(
        f"{product.url}api/v1/auth/token/",
        json={"username": username, "password": "wrong"},
        headers=dict(headers),
        timeout=30,
    )
    return str(answer.json()["code"])


def sign_in(product: Product, headers: Mapping[str, str]) -> int:
    """The status with which the console answers the right password."""
    with httpx2.Client(base_url=product.url, headers=dict(headers), timeout=30) as client:
        page = client.get("admin/login/")
        name, _, token = page.headers["set-cookie"].partition(";")[0].partition("=")
        answer = client.post(
            "admin/login/",
            data={"username": "proxied", "password": PASSWORD, "csrfmiddlewaretoken": token},
            # By hand: a client does not send over plaintext what is for TLS, which a proxy ends.
            headers={"Cookie": f"{name}={token}", "Referer": f"https://{httpx2.URL(product.url).netloc.decode()}/"},
        )
        return answer.status_code


def upgrade(product: Product, headers: Mapping[str, str]) -> int:
    try:
        with connect(product.websocket_url, additional_headers=headers, proxy=None, open_timeout=20):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


@pytest.mark.parametrize("headers", FORGED, ids=lambda headers: "-".join(*headers.items()))
def test_no_header_gets_past_an_accounts_address_rule(direct: tuple[Product, Keys], headers: dict[str, str]) -> None:
    product, keys = direct
    assert ask_rest(product, keys.other, headers) == "security.ip_denied"
    assert ask_socket(product, keys.other, headers) == "security.ip_denied"
    assert ask_rest(product, keys.agent, headers) == "accepted"


def test_no_header_makes_another_address_of_one_that_is_locked_out(direct: tuple[Product, Keys]) -> None:
    product, _ = direct
    codes = [ask_for_token(product, "proxied-nobody", headers) for headers in FORGED]
    assert codes == ["security.authentication_failed"] * 5 + ["security.locked_out"] * (len(FORGED) - 5)


def test_the_record_has_the_peer_whatever_the_headers_say(direct: tuple[Product, Keys]) -> None:
    product, keys = direct
    for headers in FORGED[::3]:
        assert sign_in(product, headers) == 302
        assert ask_socket(product, keys.agent, headers) == "accepted"
    assert list_recorded(product, "console.sign_in", "accounts.authenticate", "access.deny") == [PEER]


def test_no_header_makes_another_address_of_one_that_opens_too_many(direct: tuple[Product, Keys]) -> None:
    product, _ = direct
    numbers = itertools.count(1)
    statuses = [upgrade(product, {"X-Forwarded-For": f"198.51.100.{next(numbers)}"}) for _ in range(2 * CONNECTIONS)]
    assert 429 in statuses


@pytest.mark.parametrize(("said", "seen"), SEEN_BY_A_PROXY)
def test_of_a_trusted_proxys_list_the_last_that_is_no_proxys_counts(
    proxied: tuple[Product, Keys], said: str, seen: str
) -> None:
    product, keys = proxied
    headers = {**SECURE, "X-Forwarded-For": said, "X-Real-IP": ALLOWED, "Forwarded": f"for={ALLOWED}"}
    expected = "accepted" if seen == ALLOWED else "security.ip_denied"
    assert ask_rest(product, keys.other, headers) == expected
    assert ask_socket(product, keys.other, headers) == expected


def test_a_proxys_client_is_locked_out_and_no_other(proxied: tuple[Product, Keys]) -> None:
    product, _ = proxied

    def ask(said: str) -> str:
        return ask_for_token(product, "proxied-nobody", {**SECURE, "X-Forwarded-For": said})

    # What stands before its own address the client has made up.
    codes = [ask(f"198.51.100.{number}, 192.0.2.1") for number in range(6)]
    assert codes == ["security.authentication_failed"] * 5 + ["security.locked_out"]
    assert ask("192.0.2.1, 192.0.2.2") == "security.authentication_failed"


def test_the_record_has_a_proxys_client(proxied: tuple[Product, Keys]) -> None:
    product, keys = proxied
    console, socket = "192.0.2.81", "2001:db8:5::9"
    assert sign_in(product, {**SECURE, "X-Forwarded-For": f"{ALLOWED}, {console}"}) == 302
    assert ask_socket(product, keys.agent, {**SECURE, "X-Forwarded-For": f"{ALLOWED}, [{socket}]:9"}) == "accepted"
    assert list_recorded(product, "console.sign_in") == [console]
    assert socket in list_recorded(product, "accounts.authenticate")


def test_a_proxys_client_opens_only_so_many_and_others_may_still(proxied: tuple[Product, Keys]) -> None:
    product, _ = proxied

    def open_from(address: str) -> int:
        return upgrade(product, {**SECURE, "X-Forwarded-For": address})

    # One customer's network of IPv6 is one address.
    statuses = [open_from(f"{ALLOWED}, 2001:db8:7:7::{number}") for number in range(1, 2 * CONNECTIONS)]
    assert 429 in statuses
    assert open_from("2001:db8:7:8::1") == 101
