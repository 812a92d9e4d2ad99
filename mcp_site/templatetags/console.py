"""How the console writes JSON and durations. Everything is text here: the templates escape it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from django import template

from tools.domain.timing import describe_duration

register = template.Library()

MAX_SHOWN_CHARACTERS: Final = 32_768
MAX_FORMATTED_BYTES: Final = 2_097_152
"""What is larger is shown as it is stored: its beginning."""


@register.inclusion_tag("console/json.html")
def json_block(title: str, value: object, *, identifier: str = "") -> dict[str, Any]:
    """A value as readable JSON under a title: stored text or bytes, or what JSON can be made of. Bounded."""
    stored = value if isinstance(value, bytes | memoryview | str) else msgspec.json.encode(value)
    encoded = stored.encode() if isinstance(stored, str) else bytes(stored)
    text = _format(encoded)
    return {
        "title": title,
        "identifier": identifier,
        "text": text[:MAX_SHOWN_CHARACTERS],
        "size_bytes": len(encoded),
        "left_out": max(0, len(text) - MAX_SHOWN_CHARACTERS),
    }


@register.filter
def duration(seconds: float | None) -> str:
    """Seconds as people write them; nothing for nothing."""
    return "" if seconds is None else describe_duration(seconds)


@register.filter
def percent(fraction: float | None) -> str:
    """A fraction of 1 as whole percents, within 0 and 100."""
    return "" if fraction is None else str(round(100 * min(max(fraction, 0.0), 1.0)))


def _format(encoded: bytes) -> str:
    if len(encoded) > MAX_FORMATTED_BYTES:
        return encoded[:MAX_FORMATTED_BYTES].decode(errors="replace")
    try:
        return msgspec.json.format(encoded, indent=2).decode(errors="replace")
    except (msgspec.DecodeError, RecursionError):
        # What is not JSON is shown too: whoever looks here wants to know what there is.
        return encoded.decode(errors="replace")
