"""Where ``http.request`` does not lead, by whatever way it is asked: nothing is dialled, nothing is touched."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response
from werkzeug.datastructures import Headers

from tests.unit.tools.dialers import WatchedDialer
from tests.unit.tools.test_addresses import OTHER_FORMS, PUBLIC, SPECIAL
from tools.authoring import ToolContext, ToolError
from tools.builtin.dialing import Deadline, DestinationRefused, ExchangeFailed
from tools.builtin.http_exchange import Answer, Order, exchange
from tools.builtin.http_request import request_http
from tools.builtin.urls import parse_url

LOOPBACK = ip_network("127.0.0.1/32")
NAMES: dict[str, list[list[str]]] = {
    "localhost": [["127.0.0.1", "::1"]],
    "localtest.example": [["127.0.0.2"]],
    "metadata.google.internal": [["169.254.169.254"]],
    "db": [["10.0.0.5"]],
    "v6.example": [["fd00:ec2::254"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "nat64.example": [["64:ff9b::a9fe:a9fe"]],
    "mixed.example": [["93.184.216.34", "127.0.0.2"]],
    "mixed6.example": [["2606:4700::1111", "::1"]],
    "many.example": [["93.184.216.34"] * 50 + ["192.168.0.1"]],
    "scoped.example": [["fe80::1%lo"]],
    "nowhere.example": [[]],
}


@dataclass(frozen=True)
class Trap:
    """Sockets that listen on loopback and must stay untouched."""

    listeners: Sequence[socket.socket]

    def get_port(self, family: socket.AddressFamily) -> int:
        port: int = next(found.getsockname()[1] for found in self.listeners if found.family == family)
        return port

    def assert_untouched(self) -> None:
        for listener in self.listeners:
            with pytest.raises(BlockingIOError):
                listener.accept()


@pytest.fixture
def trap() -> Iterator[Trap]:
    listeners = []
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  # any way in is watched
        listener = socket.create_server((host, 0), family=family)
        listener.setblocking(False)
        listeners.append(listener)
    yield Trap(listeners)
    for listener in listeners:
        listener.close()


@pytest.fixture(scope="module")
def running_server() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1") as running:
        yield running


@pytest.fixture
def server(running_server: HTTPServer) -> HTTPServer:
    running_server.clear()
    return running_server


class PlainResponse(Response):
    """Its headers go out as they are, where werkzeug would write a Location anew."""

    def get_wsgi_headers(self, environ: Any) -> Headers:  # noqa: ARG002  # werkzeug's signature
        return self.headers


def redirect_to(location: str, *, status: int = 302) -> Response:
    return PlainResponse(status=status, headers={"Location": location.encode().decode("latin-1")})


def ask(url: str, dialer: WatchedDialer, *, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    order = Order(
        method=method,
        target=parse_url(url),
        headers=headers or {},
        body=b"body" if method == "POST" else None,
        max_response_bytes=1_000,
        max_redirects=5,
    )
    return exchange(order=order, dialer=dialer, allowed=[LOOPBACK], deadline=Deadline(seconds=10))


def bracket(address: str) -> str:
    return f"[{address}]" if ":" in address else address


REFUSED_HOSTS = [bracket(address) for address in SPECIAL if address != "127.0.0.1"]
REFUSED_HOSTS += [*OTHER_FORMS, *NAMES, "LOCALHOST.", "127.0.0.2", "127.0.0.1.nowhere.example"]


def test_the_tables_are_long_enough_to_mean_something() -> None:
    assert len(set(REFUSED_HOSTS)) > 100


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_refused_host_is_not_dialled(host: str) -> None:
    dialer = WatchedDialer(NAMES)
    with pytest.raises(ToolError) as refused:
        ask(f"http://{host}/", dialer)
    assert not isinstance(refused.value, ExchangeFailed)
    assert dialer.dialled == []


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_a_redirect_to_a_refused_host_is_not_dialled(server: HTTPServer, host: str) -> None:
    server.expect_request("/").respond_with_response(redirect_to(f"//{host}/"))
    dialer = WatchedDialer(NAMES)
    with pytest.raises(DestinationRefused):
        ask(server.url_for("/"), dialer)
    assert dialer.dialled == ["127.0.0.1"]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "unix:/run/x", "http://a@127.0.0.1/"])
def test_a_redirect_to_another_scheme_or_with_a_user_is_refused(server: HTTPServer, location: str) -> None:
    server.expect_request("/").respond_with_response(redirect_to(location))
    with pytest.raises(DestinationRefused):
        ask(server.url_for("/"), WatchedDialer())


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.2", "127.255.255.254", "0", "2130706433", "0x7f000001", "017700000001", "127.1"),
        *("0177.0.0.1", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "[::ffff:127.0.0.1]", "[::127.0.0.1]"),
        *("[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "user@127.0.0.1", "example.com@127.0.0.1", "0.0.0.0"),  # noqa: S104  # what is tested
        "１２７.0.0.1",  # noqa: RUF001  # likewise
    ],
)
def test_with_the_machines_own_resolver_and_sockets_nothing_on_loopback_is_touched(
    context: ToolContext, trap: Trap, host: str
) -> None:
    with pytest.raises(ToolError) as refused:
        request_http(context, url=f"http://{host}:{trap.get_port(socket.AF_INET)}/")
    assert not isinstance(refused.value, ExchangeFailed)
    trap.assert_untouched()


@pytest.mark.parametrize("host", ["[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]", "[::1%lo]", "localhost"])
def test_nor_by_version_6(context: ToolContext, trap: Trap, host: str) -> None:
    with pytest.raises(ToolError) as refused:
        request_http(context, url=f"http://{host}:{trap.get_port(socket.AF_INET6)}/")
    assert not isinstance(refused.value, ExchangeFailed)
    trap.assert_untouched()


def test_nor_by_a_redirect(make_context: Callable[..., ToolContext], server: HTTPServer, trap: Trap) -> None:
    """The server is at an address that is allowed, the trap at others."""
    for host in ("127.0.0.2", "[::ffff:127.0.0.1]", "0.0.0.0"):  # noqa: S104  # what is tested
        server.clear()
        location = f"http://{host}:{trap.get_port(socket.AF_INET)}/"
        server.expect_request("/").respond_with_response(redirect_to(location))
        with pytest.raises(DestinationRefused):
            request_http(make_context(allowed_networks=[LOOPBACK]), url=server.url_for("/"))
    trap.assert_untouched()


def test_a_name_is_looked_up_once_and_that_address_is_dialled(server: HTTPServer) -> None:
    """What a rebinding name says the second time is never heard."""
    server.expect_request("/").respond_with_data("hello")
    dialer = WatchedDialer({"rebind.example": [["127.0.0.1"], ["127.0.0.2"]]})
    assert ask(f"http://rebind.example:{server.port}/", dialer).body == b"hello"
    assert (dialer.looked_up, dialer.dialled) == (["rebind.example"], ["127.0.0.1"])


def test_a_name_that_rebinds_between_redirects_is_looked_at_again(server: HTTPServer, trap: Trap) -> None:
    server.expect_request("/").respond_with_data(status=302, headers={"Location": "/again"})
    dialer = WatchedDialer({"rebind.example": [["127.0.0.1"], ["127.0.0.2"]]})
    with pytest.raises(DestinationRefused):
        ask(f"http://rebind.example:{server.port}/", dialer)
    assert dialer.dialled == ["127.0.0.1"]
    moved = f"http://rebind.example:{trap.get_port(socket.AF_INET)}/"
    server.clear()
    server.expect_request("/").respond_with_data(status=302, headers={"Location": moved})
    dialer = WatchedDialer({"rebind.example": [["127.0.0.1"], ["169.254.169.254", "127.0.0.2"]]})
    with pytest.raises(DestinationRefused):
        ask(f"http://rebind.example:{server.port}/", dialer)
    trap.assert_untouched()


def test_a_public_host_that_redirects_inwards_gets_nowhere(server: HTTPServer, trap: Trap) -> None:
    inwards = f"http://127.0.0.2:{trap.get_port(socket.AF_INET)}/"
    server.expect_request("/").respond_with_data(status=302, headers={"Location": inwards})
    dialer = WatchedDialer({"public.example": [["93.184.216.34"]]}, public_port=server.port)
    with pytest.raises(DestinationRefused):
        ask("http://public.example/", dialer)
    assert dialer.dialled == ["93.184.216.34"]
    trap.assert_untouched()


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_dialled(server: HTTPServer, address: str) -> None:
    server.expect_request("/").respond_with_data("hello")
    dialer = WatchedDialer({"public.example": [[address]]}, public_port=server.port)
    assert ask(f"http://{bracket(address)}/", dialer).body == b"hello"
    assert ask("http://public.example/", dialer).body == b"hello"
    assert len(set(dialer.dialled)) == 1


def test_a_refusal_says_no_address_that_the_caller_did_not(server: HTTPServer) -> None:
    with pytest.raises(DestinationRefused) as internal:
        ask("http://db/", WatchedDialer(NAMES))
    with pytest.raises(DestinationRefused) as missing:
        ask("http://xy/", WatchedDialer(NAMES))
    assert "10.0.0.5" not in internal.value.message
    assert internal.value.message.replace("db", "xy") == missing.value.message


def record_headers(seen: list[dict[str, str]], response: Response) -> Callable[[Request], Response]:
    def handle(request: Request) -> Response:
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return response

    return handle


CREDENTIALS = {
    "authorization": "Bearer x",
    "cookie": "a=b",
    "x-api-key": "k",
    "content-type": "text/x",
    "accept": "a/b",
}


@pytest.mark.parametrize(
    ("location", "is_kept"),
    [("/b", True), ("http://one.example/b", True), ("http://two.example/b", False), ("http://one.example:81/b", False)],
)
def test_credentials_stay_with_their_origin(server: HTTPServer, location: str, is_kept: bool) -> None:
    seen: list[dict[str, str]] = []
    server.expect_request("/").respond_with_handler(record_headers(seen, redirect_to(location, status=307)))
    server.expect_request("/b").respond_with_handler(record_headers(seen, Response("done")))
    names = {name: [["93.184.216.34"]] for name in ("one.example", "two.example")}
    answer = ask(
        "http://one.example/", WatchedDialer(names, public_port=server.port), headers=CREDENTIALS, method="POST"
    )
    assert answer.body == b"done"
    first, second = seen
    assert CREDENTIALS.items() <= first.items()
    assert [second.get(name) == value for name, value in CREDENTIALS.items()] == [is_kept] * 3 + [True] * 2
    assert second["content-length"] == "4"
