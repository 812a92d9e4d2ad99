"""Base64url without padding (RFC 4648, section 5), strictly: each sequence of bytes has one text."""

from __future__ import annotations

import base64
import binascii

_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
# A text's last character may hold two or four bits that mean nothing: only zeros are taken.
_LAST_OF_TWO = frozenset(b"AQgw")
_LAST_OF_THREE = frozenset(b"AEIMQUYcgkosw048")


def encode_base64url(data: bytes) -> str:
    """The bytes as text."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64url(text: str | bytes) -> bytes:
    """The bytes that the text writes.

    Raises:
        ValueError: it is no base64url, is padded, or is not the way in which these bytes are written.
    """
    data = text.encode() if isinstance(text, str) else text
    rest = len(data) % 4
    if rest == 1 or (rest == 2 and data[-1] not in _LAST_OF_TWO) or (rest == 3 and data[-1] not in _LAST_OF_THREE):
        raise ValueError("no base64url")
    try:
        # Strictly: what is not of the alphabet is refused, where it would be passed over otherwise.
        return binascii.a2b_base64(data.translate(_TO_STANDARD) + b"==="[: -rest % 4], strict_mode=True)
    except binascii.Error as error:
        raise ValueError("no base64url") from error
