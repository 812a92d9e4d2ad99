"""The cursor of a list that is ordered by time and id: where a page ended, as a text that clients give back unread."""

from __future__ import annotations

import base64
import binascii
import uuid
from datetime import datetime

import msgspec
from msgspec import Struct

from protocol.errors import InvalidArguments


class Position(Struct, frozen=True, array_like=True):
    """The last row of a page."""

    created_at: datetime
    id: uuid.UUID


def encode_cursor(position: Position) -> str:
    """The position as a client gets it."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """The position that a client gives back.

    Raises:
        InvalidArguments: it is none of ours.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), type=Position)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise InvalidArguments("This is no cursor of this list.", details={"path": "arguments.cursor"}) from error
