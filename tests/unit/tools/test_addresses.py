"""Which addresses ``http.request`` connects to, and what URLs it reads: pure rules, no network."""

from __future__ import annotations

import re
import string
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.authoring import ToolError
from tools.builtin.addresses import may_connect, may_connect_to_all
from tools.builtin.urls import MAX_URL_CHARACTERS, parse_redirect, parse_url

SPECIAL = (
    "0.0.0.0",  # noqa: S104  # what is tested
    *("0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1"),
    *("192.88.99.1", "192.168.0.1", "192.168.255.255", "192.175.48.1", "198.18.0.1", "198.19.255.255"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::2", "::7f00:1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:7f00:1"),
    *("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1", "64:ff9b:1:ffff::1", "100::1", "200::1", "400::1"),
    *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1"),
    *("2001:db8::1", "2002:7f00:1::", "2002:808:808::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1", "4000::1"),
    *("5f00::1", "fc00::1", "fd00:ec2::254", "fd20:ce::254", "fdff::1", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff00::1", "ff02::1", "ff0e::1", "ffff::1", "2606:4700::5efe:a00:1", "2606:4700::200:5efe:a00:1"),
    "2606:4700::1%eth0",
)
PUBLIC = ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0"]
PUBLIC += ["172.15.255.255", "172.32.0.0", "192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255"]
PUBLIC += ["2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1", "2606:4700::5efe:808:808"]


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_refused(address: str) -> None:
    assert not may_connect(address=ip_address(address), allowed=())
    assert not may_connect_to_all(addresses=[ip_address("8.8.8.8"), ip_address(address)], allowed=())


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert may_connect(address=ip_address(address), allowed=())


@given(st.ip_addresses())
def test_nothing_passes_that_the_registries_do_not_call_global_unicast(address: IPv4Address | IPv6Address) -> None:
    if may_connect(address=address, allowed=()):
        assert address.is_global
        assert not any((address.is_private, address.is_multicast, address.is_reserved, address.is_unspecified))
        assert isinstance(address, IPv4Address) or address in ip_network("2000::/3")


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:0:0", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:0:0"]))
def test_no_address_passes_within_one_that_carries_it(carried: IPv4Address, prefix: str) -> None:
    assert not may_connect(address=IPv6Address(int(IPv6Address(prefix)) | int(carried)), allowed=())


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_no_6to4_address_passes(carried: IPv4Address, rest: int) -> None:
    assert not may_connect(address=IPv6Address(0x2002 << 112 | int(carried) << 80 | rest), allowed=())


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_a_network_that_is_allowed_opens_itself_alone(
    address: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, length: int
) -> None:
    network = ip_network((other, length % (other.max_prefixlen + 1)), strict=False)
    if may_connect(address=address, allowed=[network]):
        assert may_connect(address=address, allowed=()) or address in network


def test_allowed_networks() -> None:
    allowed = [ip_network("127.0.0.1/32"), ip_network("::1/128"), ip_network("64:ff9b::/96")]
    for address in ("127.0.0.1", "::1", "64:ff9b::7f00:1", "64:ff9b::808:808"):
        assert may_connect(address=ip_address(address), allowed=allowed)
    for address in ("127.0.0.2", "::ffff:127.0.0.1", "64:ff9b::a00:1", "10.0.0.1"):
        assert not may_connect(address=ip_address(address), allowed=allowed)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://example.com", "example.com", 80, "/"),
        ("HTTPS://EXAMPLE.com:8443/a?b=c#d", "example.com", 8443, "/a?b=c"),
        ("https://example.com./", "example.com", 443, "/"),
        ("http://a_b.xn--mnchen-3ya.de:/", "a_b.xn--mnchen-3ya.de", 80, "/"),
        ("http://192.0.2.1:81/", "192.0.2.1", 81, "/"),
        ("http://[2606:4700:0:0::1]:81/", "2606:4700::1", 81, "/"),
        ("http://example.com/ä b/%20?q=[é]{}", "example.com", 80, "/%C3%A4%20b/%20?q=[%C3%A9]%7B%7D"),
        ("http://example.com?x", "example.com", 80, "/?x"),
    ],
)
def test_a_url_is_read(url: str, host: str, port: int, path: str) -> None:
    target = parse_url(url)
    assert (target.host, target.port, target.path) == (host, port, path)
    assert parse_url(target.url) == target


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "//example.com/", "/path", "http:", "http://", "http:///path", "http:example.com"),
        *("ftp://example.com/", "file:///etc/passwd", "unix:///run/x.sock", "gopher://example.com/", "javascript:1"),
        *("http://user@example.com/", "http://user:password@example.com/", "http://@example.com/"),
        *("http://example.com\\@127.0.0.1/", "http://example.com/\r\nx: y", "http://exam\tple.com/", "http://a b/"),
        *("http://example.com:0/", "http://example.com:65536/", "http://example.com:x/", "http://example.com:1:2/"),
        *("http://[::1/", "http://::1/", "http://[::1]x/", "http://[v1.x]/", "http://[]/", "http://[127.0.0.1]/"),
        *("http://a..b/", "http://.a/", "http://-a/", "http://a%2eb/", "http://*/", f"http://{'a' * 64}/"),
        *(f"http://{'a.' * 127}a/", f"http://a/{'b' * MAX_URL_CHARACTERS}", "http://\ud800/", "http://a/\ud800"),
    ],
)
def test_what_is_no_url_for_it_is_refused(url: str) -> None:
    with pytest.raises(ToolError):
        parse_url(url)


OTHER_FORMS = (
    *("2130706433", "0x7f000001", "0X7F000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1", "0", "0x"),
    *("127.0.0.01", "127.0.0.0x1", "0x7f.0.0.1", "127.0.0.1.1", "256.0.0.1", "a.1", "1.0x1", "4294967296"),
    *("１２７.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "loc\u00adalhost", "\u212a.example", "١٢٧.0.0.1"),  # noqa: RUF001  # what is tested
    *("[fe80::1%25eth0]", "[fe80::1%eth0]", "[::ffff:127.1]", "[::ffff:0x7f.0.0.1]", "[0:0:0:0:0:0:0:0:1]"),
)


@pytest.mark.parametrize("host", OTHER_FORMS)
def test_other_forms_of_addresses_are_refused(host: str) -> None:
    for tail in ("", ".", ":80"):
        with pytest.raises(ToolError):
            parse_url(f"http://{host}{tail}/")


@given(st.text(string.digits + "xXabf.", min_size=1, max_size=20))
def test_a_host_that_ends_in_a_number_is_an_address_in_its_one_form_or_nothing(host: str) -> None:
    try:
        target = parse_url(f"http://{host}/")
    except ToolError:
        return
    last = target.host.rpartition(".")[2]
    if last.isdigit() or re.fullmatch("0x[0-9a-f]*", last):
        assert target.address == IPv4Address(host.removesuffix("."))


@given(st.text(max_size=30))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    for prefix in ("", "http://", "https://[", "http://example.com"):
        try:
            target = parse_url(prefix + text)
        except ToolError:
            continue
        assert target.url.isascii()
        assert not any(character.isspace() for character in target.url)
        assert parse_url(target.url) == target


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "http://example.com:81/b?c"),
        ("b", "http://example.com:81/a/b"),
        ("?q", "http://example.com:81/a/x?q"),
        ("//other.example/b", "http://other.example/b"),
        ("https://other.example", "https://other.example/"),
        ("", "http://example.com:81/a/x"),
    ],
)
def test_a_redirect_may_be_relative(location: str, url: str) -> None:
    assert parse_redirect(current=parse_url("http://example.com:81/a/x"), location=location).url == url


@pytest.mark.parametrize("location", ["ftp://a/", "//a@b/", "http://[", "//0x7f.1/", "x" * 8_193])
def test_a_redirect_is_a_url_like_any(location: str) -> None:
    with pytest.raises(ToolError):
        parse_redirect(current=parse_url("http://example.com/"), location=location)
