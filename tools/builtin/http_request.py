"""``http.request``: HTTP to the public Internet, for agents.

Here is what callers may ask and are told, within bounds. The exchange itself is ``tools.builtin.http_exchange``, where
it may lead ``tools.builtin.addresses``.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import enum
import re
import zlib
from collections.abc import Mapping
from email.message import Message
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from tools.authoring import ToolContext, ToolError, tool
from tools.builtin.urls import MAX_URL_CHARACTERS, parse_url

if TYPE_CHECKING:
    from tools.builtin.http_exchange import Answer, Order

MAX_HEADERS = 64
MAX_HEADER_CHARACTERS = 8_192
MAX_HEADERS_CHARACTERS = 32_768
MAX_BODY_CHARACTERS = 1_048_576
MAX_RESPONSE_BYTES = 8_388_608
MAX_TIMEOUT_SECONDS = 120
MAX_REDIRECTS = 5

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_VALUE: Final = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""What says how a message is framed or routed, and is this tool's to say. ``proxy-*`` are refused too."""
_COMPRESSIONS: Final = frozenset({"gzip", "x-gzip", "deflate"})
_ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "iso-8859-1": "latin-1",
    "iso-8859-15": "iso-8859-15",
    "windows-1252": "cp1252",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
}
"""A closed list: Python's codecs have more than character sets among them."""


class Method(enum.StrEnum):
    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    OPTIONS = "OPTIONS"


_WITH_CONTENT: Final = frozenset({Method.POST, Method.PUT, Method.PATCH})


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    value: str


class HttpResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: Annotated[int, msgspec.Meta(description="Of the last response; an error's status is a result too.")]
    reason: str
    headers: Annotated[list[Header], msgspec.Meta(description="As they came; a name may be there more than once.")]
    has_cut_headers: Annotated[
        bool,
        msgspec.Meta(description=f"Whether some beyond {MAX_HEADERS} or {MAX_HEADERS_CHARACTERS} characters are out."),
    ]
    url: Annotated[str, msgspec.Meta(description="What answered, after the redirects.")]
    redirects: Annotated[list[str], msgspec.Meta(description="The URLs that led there, in their order.")]
    body: Annotated[str | None, msgspec.Meta(description="As text; null: it is none, and is in 'body_base64'.")]
    body_base64: Annotated[str | None, msgspec.Meta(description="Where it is no text; else null.")]
    content_encoding: Annotated[
        str | None, msgspec.Meta(description="What the body is still compressed by; null: nothing.")
    ]
    truncated: Annotated[bool, msgspec.Meta(description="Whether the body's end is missing, for its size.")]
    elapsed_ms: int


@tool(name="http.request", capabilities=["http.request"], timeout_seconds=MAX_TIMEOUT_SECONDS + 10)
def request_http(
    context: ToolContext,
    *,
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL_CHARACTERS)],
    method: Method = Method.GET,
    headers: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_HEADERS)] | None = None,
    body: Annotated[str, msgspec.Meta(max_length=MAX_BODY_CHARACTERS)] | None = None,
    body_base64: Annotated[str, msgspec.Meta(max_length=MAX_BODY_CHARACTERS * 4 // 3 + 4)] | None = None,
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=MAX_TIMEOUT_SECONDS)] = 30,
    max_response_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_RESPONSE_BYTES)] = 1_048_576,
    follow_redirects: bool = True,
) -> HttpResponse:
    """Send an HTTP request to a public address and get the response, whatever its status.

    Private, local and other special addresses are refused, also behind names and redirects. What is cut off a body is
    told; with the server's own limit of outputs it may be cut below 'max_response_bytes'.

    Args:
        url: Beginning with http:// or https://, without user and password.
        method: What to do.
        headers: By name. Host, Accept-Encoding and what frames the message are this tool's own.
        body: What to send, as UTF-8.
        body_base64: What to send, where it is no text.
        timeout_seconds: For all of it, redirects included.
        max_response_bytes: Where to cut the response's body.
        follow_redirects: Whether to follow up to 5 redirects. Another origin gets none of the headers that may be
            credentials: only Accept, Accept-Language, Content-Language, Content-Type and User-Agent.
    """
    # httpcore, which costs a worker a megabyte, and most workers never need.
    from tools.builtin.dialing import Deadline, SystemDialer  # noqa: PLC0415  # see above
    from tools.builtin.http_exchange import Order, exchange  # noqa: PLC0415  # see above

    deadline = Deadline(seconds=timeout_seconds)
    order = Order(
        method=method.value,
        target=parse_url(url),
        headers=check_headers(headers or {}),
        body=read_request_body(method=method, text=body, encoded=body_base64),
        max_response_bytes=max_response_bytes,
        max_redirects=MAX_REDIRECTS if follow_redirects else 0,
    )
    answer = exchange(order=order, dialer=SystemDialer(), allowed=context.allowed_networks, deadline=deadline)
    return render_answer(
        answer=answer,
        order=order,
        elapsed_ms=int(deadline.get_elapsed_seconds() * 1000),
        max_output_size_bytes=context.max_output_size_bytes,
    )


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The caller's headers by lower-case name.

    Raises:
        ToolError: one is none, is not the caller's to send, or there are two of a name, or too much of them.
    """
    checked: dict[str, str] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise ToolError("A header's name is not one.")
        if lowered in _OWN_HEADERS or lowered.startswith("proxy-"):
            raise ToolError(f"The header {name!r} is this tool's to send; leave it out.")
        if lowered in checked:
            raise ToolError(f"The header {name!r} is there twice.")
        if len(value) > MAX_HEADER_CHARACTERS or not _HEADER_VALUE.fullmatch(value):
            raise ToolError(
                f"The header {name!r} has a value above {MAX_HEADER_CHARACTERS} characters, or not of printable ASCII "
                "without white space around it."
            )
        checked[lowered] = value
    if sum(len(name) + len(value) for name, value in checked.items()) > MAX_HEADERS_CHARACTERS:
        raise ToolError(f"The headers have more than {MAX_HEADERS_CHARACTERS} characters together.")
    return checked


def read_request_body(*, method: Method, text: str | None, encoded: str | None) -> bytes | None:
    """What is sent; ``None``: the request has no content.

    Raises:
        ToolError: both forms are given, or one is not what it should be.
    """
    if text is not None and encoded is not None:
        raise ToolError("Give 'body' or 'body_base64', not both.")
    try:
        if encoded is not None:
            return base64.b64decode(encoded, validate=True)
        if text is not None:
            return text.encode()
    except (binascii.Error, ValueError) as error:
        raise ToolError("The body is not Base64, or not Unicode text.") from error
    return b"" if method in _WITH_CONTENT else None


def render_answer(*, answer: Answer, order: Order, elapsed_ms: int, max_output_size_bytes: int) -> HttpResponse:
    """The answer within the bounds of an output."""
    headers, has_cut_headers = _bound_headers(answer)
    body, encoding, is_cut = decode_content(
        body=answer.body,
        encoding=_get_header(answer, "content-encoding").strip().lower(),
        is_cut=answer.is_cut,
        limit=order.max_response_bytes,
    )
    bare = HttpResponse(
        status=answer.status,
        reason=answer.reason,
        headers=headers,
        has_cut_headers=has_cut_headers,
        url=answer.target.url,
        redirects=list(answer.redirects),
        body=None,
        body_base64=None,
        content_encoding=encoding,
        truncated=is_cut,
        elapsed_ms=elapsed_ms,
    )
    charset = None if encoding else _get_charset(answer)
    return _put_body(bare, body=body, charset=charset, room=max_output_size_bytes - len(msgspec.json.encode(bare)))


def decode_content(*, body: bytes, encoding: str, is_cut: bool, limit: int) -> tuple[bytes, str | None, bool]:
    """The body without its compression, what compression is left, and whether its end is missing.

    Never more than ``limit`` bytes are made of it. What is no whole stream of a known compression stays as it is.
    """
    if encoding in {"", "identity"} or not body:
        return body, None, is_cut
    if encoding not in _COMPRESSIONS:
        return body, encoding, is_cut
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    try:
        decoded = stream.decompress(body, limit + 1)
    except zlib.error:
        return body, encoding, is_cut
    if len(decoded) > limit:
        return decoded[:limit], None, True
    if stream.unused_data or (not stream.eof and not is_cut):
        return body, encoding, is_cut
    return decoded, None, is_cut


def _put_body(bare: HttpResponse, *, body: bytes, charset: str | None, room: int) -> HttpResponse:
    """The response with as much of the body as its JSON form has room for."""
    room = max(room, 0)
    text = _decode_text(body, charset=charset, is_cut=bare.truncated)
    is_cut = bare.truncated
    if not _fits(text, body=body, room=room):
        # As Base64 three quarters fit whatever the bytes are; as text it is mostly shorter than that.
        body = body[: room // 4 * 3]
        is_cut = True
        text = _decode_text(body, charset=charset, is_cut=True)
        if text is not None and not _fits(text, body=body, room=room):
            text = None
    encoded = None if text is not None else base64.b64encode(body).decode()
    return msgspec.structs.replace(bare, body=text, body_base64=encoded, truncated=is_cut)


def _fits(text: str | None, *, body: bytes, room: int) -> bool:
    size = (len(body) + 2) // 3 * 4 if text is None else len(msgspec.json.encode(text))
    # The null that the body takes the place of is four bytes long, the quotes are two.
    return size <= room


def _decode_text(body: bytes, *, charset: str | None, is_cut: bool) -> str | None:
    """``None``: it is no text. A character that the cut went through is left out."""
    if charset is None:
        return None
    try:
        return codecs.getincrementaldecoder(charset)().decode(body, final=not is_cut)
    except UnicodeDecodeError:
        return None


def _get_charset(answer: Answer) -> str:
    """The codec that the response names, UTF-8 where it names none that is known."""
    message = Message()
    message["content-type"] = _get_header(answer, "content-type")[:MAX_HEADER_CHARACTERS]
    return _CHARSETS.get(str(message.get_param("charset", "")).lower(), "utf-8")


def _get_header(answer: Answer, wanted: str) -> str:
    """The values as one (RFC 9110, section 5.2); empty: there is none."""
    return ", ".join(value for name, value in answer.headers if name.lower() == wanted)


def _bound_headers(answer: Answer) -> tuple[list[Header], bool]:
    headers: list[Header] = []
    remaining = MAX_HEADERS_CHARACTERS
    for name, value in answer.headers:
        remaining -= len(name) + len(value)
        if len(headers) == MAX_HEADERS or remaining < 0:
            return headers, True
        headers.append(Header(name=name, value=value))
    return headers, False
