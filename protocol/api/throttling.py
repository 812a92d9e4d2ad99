"""What is left to a caller, in the headers of an answer. What counts is the ``Limiter`` port, as on every door."""

from __future__ import annotations

import math

from django.http.response import HttpResponseBase

from protocol.ports import Allowance


def add_headers(response: HttpResponseBase, allowance: Allowance) -> None:
    """Say what is left (the IETF's draft on RateLimit header fields, in the form that clients know)."""
    response["RateLimit-Limit"] = str(allowance.limit)
    response["RateLimit-Remaining"] = str(allowance.remaining)
    response["RateLimit-Reset"] = str(math.ceil(allowance.reset_seconds))
