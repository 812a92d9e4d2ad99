"""What the listening port accepts: TLS 1.3 only, and no peer that sends too much or nothing."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from mcp_site.serving.web import MAX_BODY_BYTES, MAX_HEAD_BYTES
from tests.services import Product, run_product

HANDSHAKE_SECONDS = 1
NAMED_ORIGIN = "https://app.example"


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "cert.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_path, key_path


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_product(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Product]:
    """A product that ends TLS itself."""
    variables = {
        "MCP_TLS_CERT": str(certificate[0]),
        "MCP_TLS_KEY": str(certificate[1]),
        "MCP_HANDSHAKE_TIMEOUT_SECONDS": str(HANDSHAKE_SECONDS),
        "MCP_ALLOWED_ORIGINS": NAMED_ORIGIN,
    }
    with run_product(tmp_path_factory.mktemp("tls") / "var", **variables) as product:
        yield product


@pytest.fixture
def context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


def open_tls(product: Product, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A TLS connection to the product."""
    address = urlsplit(product.url)
    assert address.hostname is not None
    plain = socket.create_connection((address.hostname, address.port), timeout=10)
    try:
        return context.wrap_socket(plain, server_hostname="127.0.0.1")
    except BaseException:
        plain.close()
        raise


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the peer closes; fails when it does not within the socket's timeout."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def test_only_tls_1_3_is_accepted(tls_product: Product, context: ssl.SSLContext) -> None:
    assert tls_product.url.startswith("https://")
    with open_tls(tls_product, context) as connection:
        assert connection.version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        open_tls(tls_product, context)


def test_the_socket_works_over_tls(tls_product: Product, context: ssl.SSLContext) -> None:
    assert tls_product.websocket_url.startswith("wss://")
    with connect(tls_product.websocket_url, ssl=context, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers, "permessage-deflate was agreed"


def test_web_pages_are_let_in_by_their_origin(tls_product: Product, context: ssl.SSLContext) -> None:
    own = tls_product.url.rstrip("/")
    for origin in (Origin(own), Origin(NAMED_ORIGIN), None):
        with connect(tls_product.websocket_url, ssl=context, origin=origin) as client:
            assert client.response is not None
            assert "Server" not in client.response.headers
    for refused in ("https://evil.example", own.replace("https", "http"), "null"):
        with (
            pytest.raises(InvalidStatus) as caught,
            connect(tls_product.websocket_url, ssl=context, origin=Origin(refused)),
        ):
            pass
        assert caught.value.response.status_code == 403


def test_cookies_over_tls_are_bound_to_the_host(tls_product: Product, context: ssl.SSLContext) -> None:
    request = f"GET /admin/login/ HTTP/1.1\r\nHost: {urlsplit(tls_product.url).netloc}\r\nConnection: close\r\n\r\n"
    with open_tls(tls_product, context) as connection:
        connection.sendall(request.encode())
        answer = read_to_end(connection).decode()
    (cookie,) = [line for line in answer.splitlines() if line.lower().startswith("set-cookie:")]
    assert cookie.partition(" ")[2].startswith("__Host-mcp_csrf=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookie.split(";")}


def test_plain_text_on_the_tls_port_gets_nothing(tls_product: Product) -> None:
    address = urlsplit(tls_product.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in read_to_end(connection)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_a_peer_that_sends_no_request_is_gone_after_the_deadline(
    tls_product: Product, context: ssl.SSLContext, sent: bytes
) -> None:
    with open_tls(tls_product, context) as connection:
        connection.sendall(sent)
        connection.settimeout(HANDSHAKE_SECONDS + 5)
        assert read_to_end(connection) == b""


def test_headers_without_an_end_are_refused(tls_product: Product, context: ssl.SSLContext) -> None:
    with open_tls(tls_product, context) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 66_000)
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 431")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "protocol.message_too_large"


def test_a_body_without_an_end_is_refused(tls_product: Product, context: ssl.SSLContext) -> None:
    # In chunks: a stated length would be refused before.
    head = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with open_tls(tls_product, context) as connection:
        # One byte more than is read: an answer is lost where the peer has sent what nobody takes.
        chunks = (b"10000\r\n" + b"a" * 65_536 + b"\r\n") * 130
        connection.sendall((head + chunks)[: MAX_HEAD_BYTES + MAX_BODY_BYTES + 1])
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 413")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "protocol.message_too_large"


def test_one_connection_serves_several_requests(tls_product: Product, context: ssl.SSLContext) -> None:
    with open_tls(tls_product, context) as connection:
        for _ in range(3):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                chunk = connection.recv(65536)
                assert chunk, answer
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"\r\nserver:" not in answer.lower()
