"""What leaves the API when nothing went wrong: JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from django.http import HttpResponse

JSON_MEDIA_TYPE = "application/json"


def respond_with_json(value: Any, *, status: int) -> HttpResponse:
    """The value, msgspec's structures in it too, as JSON."""
    return HttpResponse(msgspec.json.encode(value), status=status, content_type=JSON_MEDIA_TYPE)
