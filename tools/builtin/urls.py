"""URLs that a tool may ask for: parsed once, strictly, into what is connected to and what is sent.

Nothing after this parses a URL or a host again, so that no two parsers can disagree on where one leads. Hosts are IP
addresses in their canonical form or names in ASCII. The many other ways to write an IPv4 address (octal, hexadecimal,
one number, fewer parts, full-width digits) are refused, not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from tools.authoring import ToolError
from tools.builtin.addresses import Address

MAX_URL_CHARACTERS = 8_192
MAX_NAME_CHARACTERS = 253

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""What the last part of a name never is: it would be a way to write an IPv4 address (URL Standard, section 3.5)."""
_AUTHORITY: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]{0,5}))?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_KEPT: Final = "%!#$&'()*+,/:;=?@[]~"
"""What stands in a URL as it is, besides letters and digits; anything else is percent-encoded (RFC 3986)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a URL leads."""

    scheme: str
    host: str
    """In lower case, an IPv6 address without brackets."""
    address: Address | None
    """Of a host that is an address; ``None``: it is a name."""
    port: int
    path: str
    """With the query, as it is sent."""

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host as URLs and the Host header have it, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def parse_url(url: str) -> Target:
    """Where the URL leads.

    Raises:
        ToolError: it is no absolute HTTP URL, or one that is refused; the message says why.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ToolError(f"The URL has more than {MAX_URL_CHARACTERS} characters.")
    if _CONTROL.search(url):
        raise ToolError("The URL has a control character or a backslash.")
    try:
        parts = urlsplit(url)
        path = quote(parts.path or "/", safe=_KEPT)
        query = quote(parts.query, safe=_KEPT)
    except ValueError as error:
        raise ToolError("The URL cannot be read; write it as in 'https://example.com/path?query'.") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.netloc:
        raise ToolError("The URL must begin with http:// or https:// and a host.")
    if "@" in parts.netloc:
        raise ToolError("The URL has a user or password in it; send credentials as a header.")
    found = _AUTHORITY.fullmatch(parts.netloc)
    port = int(found["port"] or _DEFAULT_PORTS[parts.scheme]) if found else 0
    if found is None or not 0 < port < 65_536:
        raise ToolError("The URL's host or port is not one.")
    host, address = _parse_host(found["host"])
    sent = f"{path}?{query}" if query else path
    return Target(scheme=parts.scheme, host=host, address=address, port=port, path=sent)


def parse_redirect(*, current: Target, location: str) -> Target:
    """Where a response's Location leads, which may be relative.

    Raises:
        ToolError: as ``parse_url``.
    """
    if len(location) > MAX_URL_CHARACTERS:
        raise ToolError(f"The URL has more than {MAX_URL_CHARACTERS} characters.")
    try:
        url = urljoin(current.url, location)
    except ValueError as error:
        raise ToolError("The URL cannot be read.") from error
    return parse_url(url)


def _parse_host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        return _parse_ipv6(text[1:-1])
    # Told apart for who writes a name in another script; its ASCII form is looked at like any other.
    if not text.isascii():
        raise ToolError("The URL's host is not ASCII; write it in its 'xn--' form.")
    host = text.lower().removesuffix(".")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return _parse_ipv4(host)
    if len(host) > MAX_NAME_CHARACTERS or not _NAME.fullmatch(host):
        raise ToolError("The URL's host is not a name or an address.")
    return host, None


def _parse_ipv6(text: str) -> tuple[str, Address]:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise ToolError("The URL's host is not an IPv6 address.") from error
    if address.scope_id is not None:
        raise ToolError("The URL's host has a zone, which this tool does not reach.")
    return str(address), address


def _parse_ipv4(text: str) -> tuple[str, Address]:
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise ToolError("The URL's host is a number; write an IPv4 address as in 192.0.2.1.") from error
    return str(address), address
