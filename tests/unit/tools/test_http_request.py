"""``http.request`` against real servers on loopback, which the tests allow."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from tests.unit.tools.dialers import SlowDialer, WatchedDialer
from tools.adapters import Invocation, get_adapter
from tools.authoring import ToolContext, ToolError, get_declared_tools
from tools.builtin.addresses import Network
from tools.builtin.dialing import (
    MAX_ADDRESSES_TRIED,
    MAX_LOOKUPS,
    Deadline,
    DestinationRefused,
    Dialer,
    ExchangeFailed,
    ExchangeTimedOut,
    SystemDialer,
)
from tools.builtin.http_exchange import Answer, Order, exchange
from tools.builtin.http_request import MAX_HEADERS, HttpResponse, Method, request_http
from tools.builtin.urls import parse_url
from tools.domain.schemas import find_violations

LOOPBACK = ip_network("127.0.0.1/32")
Ask = Callable[..., HttpResponse]


@pytest.fixture(scope="module")
def running_server() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1") as running:
        yield running


@pytest.fixture
def server(running_server: HTTPServer) -> HTTPServer:
    running_server.clear()
    return running_server


@pytest.fixture
def open_context(make_context: Callable[..., ToolContext]) -> ToolContext:
    return make_context(allowed_networks=[LOOPBACK])


@pytest.fixture
def ask(open_context: ToolContext, server: HTTPServer) -> Ask:
    def ask_server(path: str = "/", **given: Any) -> HttpResponse:
        return request_http(open_context, url=server.url_for(path), **given)

    return ask_server


def echo(request: Request) -> Response:
    sent = {
        "method": request.method,
        "target": request.environ["RAW_URI"],
        "headers": {name.lower(): value for name, value in request.headers.items()},
        "body": base64.b64encode(request.get_data()).decode(),
    }
    return Response(json.dumps(sent), mimetype="application/json", headers={"X-Twice": "1"})


@contextlib.contextmanager
def serve_bytes(*pieces: bytes, is_endless: bool = False) -> Iterator[str]:
    """The URL of a server that sends these bytes whatever it is asked, the last of them for ever if it is endless."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)
                while is_endless:
                    connection.sendall(pieces[-1])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()


def perform(
    url: str, *, dialer: Dialer, deadline: Deadline | None = None, allowed: tuple[Network, ...] = (LOOPBACK,)
) -> Answer:
    order = Order(
        method="GET", target=parse_url(url), headers={}, body=None, max_response_bytes=1_000_000, max_redirects=5
    )
    return exchange(order=order, dialer=dialer, allowed=allowed, deadline=deadline or Deadline(seconds=10))


@pytest.mark.parametrize("method", list(Method))
def test_methods_headers_and_bodies_arrive(ask: Ask, server: HTTPServer, method: Method) -> None:
    server.expect_request("/a b").respond_with_handler(echo)
    has_body = method not in {Method.GET, Method.HEAD}
    response = ask("/a%20b?q=%C3%A9", method=method, headers={"X-One": "1 2"}, body="é" if has_body else None)
    assert (response.status, response.reason, response.truncated) == (200, "OK", False)
    assert {(header.name, header.value) for header in response.headers} >= {("X-Twice", "1")}
    if method is Method.HEAD:
        assert (response.body, response.body_base64) == ("", None)
        return
    assert response.body is not None
    sent = json.loads(response.body)
    assert (sent["method"], sent["target"]) == (method.value, "/a%20b?q=%C3%A9")
    assert base64.b64decode(sent["body"]).decode() == ("é" if has_body else "")
    expected = {"x-one": "1 2", "host": f"127.0.0.1:{server.port}", "accept-encoding": "identity"}
    assert expected.items() <= sent["headers"].items()
    assert "cookie" not in sent["headers"]
    assert "authorization" not in sent["headers"]


def test_a_body_may_be_bytes_or_nothing(ask: Ask, server: HTTPServer) -> None:
    server.expect_request("/").respond_with_handler(echo)
    sent = json.loads(ask(method=Method.PUT, body_base64=base64.b64encode(b"\0\xff").decode()).body or "")
    assert base64.b64decode(sent["body"]) == b"\0\xff"
    assert json.loads(ask(method=Method.POST).body or "")["headers"]["content-length"] == "0"
    assert "content-length" not in json.loads(ask().body or "")["headers"]


@pytest.mark.parametrize("status", [204, 304, 400, 404, 418, 500, 503])
def test_whatever_the_status_it_is_a_result(ask: Ask, server: HTTPServer, status: int) -> None:
    server.expect_request("/").respond_with_data(status=status)
    assert ask().status == status


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_the_environment_has_no_part_in_it(
    ask: Ask, server: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.2:9/")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server.expect_request("/").respond_with_handler(echo)
    sent = json.loads(ask().body or "")
    assert sent["target"] == "/"
    assert "authorization" not in sent["headers"]


def test_cookies_are_not_kept(ask: Ask, server: HTTPServer) -> None:
    away = {"Set-Cookie": "a=b; Path=/", "Location": "/b"}
    server.expect_request("/").respond_with_data(status=302, headers=away)
    server.expect_request("/b").respond_with_handler(echo)
    assert "cookie" not in json.loads(ask().body or "")["headers"]


@pytest.mark.parametrize(
    ("content", "content_type", "text"),
    [
        ("é日".encode(), "text/plain", "é日"),
        ("é".encode(), "text/plain; charset=UTF-8", "é"),
        (b"\xe9", "text/plain; charset=ISO-8859-1", "é"),
        (b"\x80", 'text/html; charset="windows-1252"', "€"),
        ("é".encode("utf-16"), "text/plain; charset=utf-16", "é"),
        (b"\xe9", "text/plain", None),
        (b"\xff\xfe\0", "application/octet-stream", None),
        (b"text", "text/plain; charset=zlib_codec", "text"),
        (b"text", "text/plain; charset=rot13", "text"),
        (b"", "text/plain", ""),
    ],
)
def test_text_comes_as_text_and_bytes_as_base64(
    ask: Ask, server: HTTPServer, content: bytes, content_type: str, text: str | None
) -> None:
    server.expect_request("/").respond_with_data(content, headers={"Content-Type": content_type})
    response = ask()
    assert response.body == text
    assert response.body_base64 == (base64.b64encode(content).decode() if text is None else None)


def test_a_big_body_is_cut_where_the_caller_says_and_between_characters(ask: Ask, server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data("é" * 100_000, content_type="text/plain")
    exact = ask(max_response_bytes=200_000)
    assert (len(exact.body or ""), exact.truncated) == (100_000, False)
    cut = ask(max_response_bytes=99_999)
    assert (cut.body, cut.truncated) == ("é" * 49_999, True)
    none = ask(max_response_bytes=0)
    assert (none.body, none.truncated) == ("", True)


@pytest.mark.parametrize(
    "content", [b"a" * 200_000, b"\x01\n\"'" * 50_000, bytes(range(256)) * 800, "é日".encode() * 9_999]
)
@pytest.mark.parametrize("limit", [1_024, 50_000, 99_999, 100_000, 1_048_576])
def test_an_output_never_exceeds_the_servers_limit(
    make_context: Callable[..., ToolContext], server: HTTPServer, content: bytes, limit: int
) -> None:
    server.expect_request("/").respond_with_data(content, content_type="text/plain")
    context = make_context(allowed_networks=[LOOPBACK], max_output_size_bytes=limit)
    response = request_http(context, url=server.url_for("/"))
    assert len(msgspec.json.encode(response)) <= limit
    given = response.body.encode() if response.body is not None else base64.b64decode(response.body_base64 or "")
    assert content.startswith(given)
    assert response.truncated == (len(given) < len(content))
    assert len(given) >= min(len(content), (limit - 800) // 4 * 3 - 3)


def test_a_body_without_an_end_is_cut(open_context: ToolContext) -> None:
    with serve_bytes(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65_536, is_endless=True) as url:
        response = request_http(open_context, url=url, max_response_bytes=100_000)
    assert (response.body, response.truncated) == ("x" * 100_000, True)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: x\r\n" * 20_000,
        b"HTTP/1.1 200 " + b"x" * 200_000,
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
def test_what_is_no_response_is_a_failure(open_context: ToolContext, head: bytes) -> None:
    with serve_bytes(head) as url, pytest.raises(ExchangeFailed):
        request_http(open_context, url=url)


def test_headers_are_bounded(open_context: ToolContext) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"X-Many: %s\r\n" % (b"x" * 300) * (MAX_HEADERS + 1) + b"Content-Length: 0\r\n\r\n"
    with serve_bytes(head) as url:
        response = request_http(open_context, url=url)
    assert (len(response.headers), response.has_cut_headers) == (MAX_HEADERS, True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
def test_what_is_compressed_against_the_request_is_opened(ask: Ask, server: HTTPServer, encoding: str) -> None:
    plain = "é compressed" * 1_000
    content = zlib.compress(plain.encode()) if encoding == "deflate" else gzip.compress(plain.encode())
    server.expect_request("/").respond_with_data(content, headers={"Content-Encoding": encoding})
    response = ask()
    assert (response.body, response.content_encoding, response.truncated) == (plain, None, False)


def test_what_is_compressed_twice_is_not_taken_for_compressed_once(open_context: ToolContext) -> None:
    content = gzip.compress(gzip.compress(b"hello", mtime=0))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n"
    with serve_bytes(head + content) as url:
        response = request_http(open_context, url=url)
    assert (response.content_encoding, response.body_base64) == ("gzip, gzip", base64.b64encode(content).decode())


def test_a_gzip_bomb_is_cut(ask: Ask, server: HTTPServer) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    server.expect_request("/").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    response = ask(max_response_bytes=100_000)
    assert (response.body, response.truncated) == ("\0" * 100_000, True)


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(b"hello", mtime=0)[:-4], "gzip"),
        (gzip.compress(b"hello", mtime=0) * 2, "gzip"),
        (gzip.compress(b"hello", mtime=0), "gzip, gzip"),
        (b"whatever", "br"),
    ],
)
def test_what_cannot_be_opened_comes_as_it_is(ask: Ask, server: HTTPServer, content: bytes, encoding: str) -> None:
    server.expect_request("/").respond_with_data(content, headers={"Content-Encoding": encoding})
    response = ask()
    assert (response.body, response.content_encoding) == (None, encoding)
    assert base64.b64decode(response.body_base64 or "") == content


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        *((301, Method.POST, "GET"), (302, Method.POST, "GET"), (303, Method.POST, "GET"), (303, Method.PUT, "GET")),
        *((301, Method.PUT, "PUT"), (307, Method.POST, "POST"), (308, Method.PATCH, "PATCH"), (302, Method.GET, "GET")),
    ],
)
def test_redirects_are_followed_as_browsers_do(
    ask: Ask, server: HTTPServer, status: int, method: Method, then: str
) -> None:
    server.expect_request("/a").respond_with_data(status=status, headers={"Location": "/b?c"})
    server.expect_request("/b").respond_with_handler(echo)
    body = None if method is Method.GET else "body"
    response = ask("/a", method=method, body=body, headers={"Content-Type": "text/x"})
    assert (response.url, response.redirects) == (server.url_for("/b?c"), [server.url_for("/a")])
    sent = json.loads(response.body or "")
    assert sent["method"] == then
    assert bool(sent["body"]) == (then != "GET")


def test_redirects_are_counted_and_may_be_left(ask: Ask, server: HTTPServer) -> None:
    for number in range(6):
        server.expect_request(f"/{number}").respond_with_data(status=302, headers={"Location": f"/{number + 1}"})
    server.expect_request("/6").respond_with_data("done")
    assert len(ask("/1").redirects) == 5
    with pytest.raises(ExchangeFailed):
        ask("/0")
    left = ask("/0", follow_redirects=False)
    assert (left.status, left.redirects, left.url) == (302, [], server.url_for("/0"))
    assert ("Location", "/1") in {(header.name, header.value) for header in left.headers}


def test_a_redirect_without_a_location_is_a_result(ask: Ask, server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data(status=302)
    assert ask().status == 302


def test_a_server_that_never_answers_costs_the_callers_time(open_context: ToolContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ExchangeTimedOut):
        request_http(open_context, url=f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_seconds=0.1)


def test_a_server_that_does_not_read_costs_the_callers_time(open_context: ToolContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(ExchangeTimedOut):
            request_http(open_context, url=url, method=Method.POST, body="x" * 1_048_576, timeout_seconds=0.1)


def make_jumping_clock() -> Callable[[], float]:
    """A clock that goes a second ahead each time it is read."""
    ticks = count()
    return lambda: float(next(ticks))


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n",),
    ],
)
def test_the_time_is_that_of_the_whole_and_not_of_each_step(pieces: tuple[bytes, ...]) -> None:
    """Each read finds something; all the same the exchange ends."""
    deadline = Deadline(seconds=30, clock=make_jumping_clock())
    with serve_bytes(*pieces, is_endless=True) as url, pytest.raises(ExchangeTimedOut):
        perform(url, dialer=SystemDialer(), deadline=deadline)


def test_redirects_share_the_time(server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data(status=302, headers={"Location": "/"})
    with pytest.raises(ExchangeTimedOut):
        perform(server.url_for("/"), dialer=SystemDialer(), deadline=Deadline(seconds=10, clock=make_jumping_clock()))


def test_a_name_that_takes_too_long_to_look_up() -> None:
    with pytest.raises(ExchangeTimedOut):
        perform("http://slow.example/", dialer=SlowDialer())


def test_lookups_that_hang_are_bounded() -> None:
    is_over = threading.Event()
    hanging = [threading.Thread(name="http-lookup", target=is_over.wait) for _ in range(MAX_LOOKUPS)]
    for thread in hanging:
        thread.start()
    try:
        with pytest.raises(ExchangeFailed):
            SystemDialer().look_up(host="localhost", timeout_seconds=5)
    finally:
        is_over.set()
        for thread in hanging:
            thread.join()
    assert SystemDialer().look_up(host="localhost", timeout_seconds=5)


def test_the_next_address_is_tried_where_one_does_not_answer(server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data("hello")
    dialer = WatchedDialer({"two.example": [["127.0.0.2", "127.0.0.1"]]})
    answer = perform(f"http://two.example:{server.port}/", dialer=dialer, allowed=(ip_network("127.0.0.0/8"),))
    assert (answer.body, dialer.dialled) == (b"hello", ["127.0.0.2", "127.0.0.1"])


def test_both_versions_of_addresses_have_their_try(server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data("hello")
    dialer = WatchedDialer({"both.example": [[*(f"2606:4700::{number}" for number in range(1, 7)), "127.0.0.1"]]})
    assert perform(f"http://both.example:{server.port}/", dialer=dialer).body == b"hello"
    assert dialer.dialled == ["2606:4700::1", "127.0.0.1"]


def test_few_of_many_addresses_are_tried() -> None:
    dialer = WatchedDialer({"many.example": [[f"93.184.216.{number}" for number in range(100)]]})
    with pytest.raises(ExchangeFailed):
        perform("http://many.example/", dialer=dialer)
    assert len(dialer.dialled) == MAX_ADDRESSES_TRIED


def test_where_nobody_listens_it_fails(open_context: ToolContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ExchangeFailed):
        request_http(open_context, url=f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "headers",
    [
        *({"Host": "x"}, {"connection": "close"}, {"Transfer-Encoding": "chunked"}, {"Content-Length": "1"}),
        *({"Proxy-Authorization": "x"}, {"Upgrade": "x"}, {"TE": "x"}, {"Expect": "x"}, {"Accept-Encoding": "br"}),
        *({"": "x"}, {"a b": "x"}, {"a:": "x"}, {"a\n": "x"}, {"é": "x"}, {"a" * 101: "x"}),
        *({"a": "x\r\nb: y"}, {"a": "é"}, {"a": " x"}, {"a": "x\0"}, {"a": "x" * 8_193}, {"a": "1", "A": "2"}),
        {f"a{number}": "x" * 8_000 for number in range(5)},
    ],
)
def test_headers_that_are_not_the_callers_to_send_are_refused(context: ToolContext, headers: dict[str, str]) -> None:
    with pytest.raises(ToolError) as refused:
        request_http(context, url="http://127.0.0.1/", headers=headers)
    assert not isinstance(refused.value, DestinationRefused)


@pytest.mark.parametrize("given", [{"body": "a", "body_base64": "YQ=="}, {"body_base64": "?"}, {"body": "\ud800"}])
def test_bodies_that_are_none_are_refused(context: ToolContext, given: dict[str, Any]) -> None:
    with pytest.raises(ToolError) as refused:
        request_http(context, url="http://127.0.0.1/", method=Method.POST, **given)
    assert not isinstance(refused.value, DestinationRefused)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of ``tls.example``, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tls.example")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("tls.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[tuple[HTTPServer, list[str | None]]]:
    """A server with that certificate, and the names that clients asked it for."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with HTTPServer(host="127.0.0.1", ssl_context=context, threaded=True) as running:
        running.expect_request("/").respond_with_handler(echo)
        yield running, names


TLS_NAMES = {"tls.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]}


def test_tls_and_host_have_the_name_though_the_address_is_dialled(
    tls_server: tuple[HTTPServer, list[str | None]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, names = tls_server
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    dialer = WatchedDialer(TLS_NAMES)
    answer = perform(f"https://tls.example:{server.port}/", dialer=dialer)
    assert json.loads(answer.body)["headers"]["host"] == f"tls.example:{server.port}"
    assert (names, dialer.dialled) == (["tls.example"], ["127.0.0.1"])


@pytest.mark.parametrize(("host", "is_trusted"), [("tls.example", False), ("other.example", True), ("127.0.0.1", True)])
def test_certificates_are_verified(
    tls_server: tuple[HTTPServer, list[str | None]],
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    is_trusted: bool,
) -> None:
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server, _ = tls_server
    with pytest.raises(ExchangeFailed):
        perform(f"https://{host}:{server.port}/", dialer=WatchedDialer(TLS_NAMES))
    assert server.log == []


def test_tls_to_a_server_without_it_fails(server: HTTPServer) -> None:
    with pytest.raises(ExchangeFailed):
        perform(f"https://127.0.0.1:{server.port}/", dialer=SystemDialer())


def call(context: ToolContext, value: dict[str, Any]) -> Any:
    """As a worker does."""
    specification = get_declared_tools()["http.request@1.0.0"]
    assert find_violations(schema=specification.input_schema, instance=value) == []
    invocation = Invocation(
        entry_point=specification.entry_point,
        tool="http.request",
        version="1.0.0",
        definition_hash=specification.definition_hash,
        input=value,
    )
    output = get_adapter(specification.adapter).run(invocation=invocation, context=context)
    assert find_violations(schema=specification.output_schema, instance=output) == []
    return output


def test_as_the_worker_calls_it_inputs_and_outputs_satisfy_the_published_schemas(
    open_context: ToolContext, server: HTTPServer
) -> None:
    server.expect_request("/").respond_with_handler(echo)
    output = call(open_context, {"url": server.url_for("/"), "method": "POST", "body": "a", "headers": {"X-A": "b"}})
    assert json.loads(output["body"])["headers"]["x-a"] == "b"
    assert call(open_context, {"url": server.url_for("/")})["status"] == 200
    assert not get_declared_tools()["http.request@1.0.0"].is_idempotent


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"url": ""},
        {"url": "x" * 8_193},
        {"url": "http://a/", "method": "CONNECT"},
        {"url": "http://a/", "method": "get"},
        {"url": "http://a/", "headers": {"a": 1}},
        {"url": "http://a/", "headers": {f"a{number}": "x" for number in range(MAX_HEADERS + 1)}},
        {"url": "http://a/", "body": "x" * 1_048_577},
        {"url": "http://a/", "timeout_seconds": 121},
        {"url": "http://a/", "timeout_seconds": 0},
        {"url": "http://a/", "max_response_bytes": -1},
        {"url": "http://a/", "max_response_bytes": 8_388_609},
        {"url": "http://a/", "verify": False},
    ],
)
def test_inputs_beyond_the_bounds_do_not_satisfy_the_schema(value: dict[str, Any]) -> None:
    assert find_violations(schema=get_declared_tools()["http.request@1.0.0"].input_schema, instance=value)
