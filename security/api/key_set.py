"""``/.well-known/mcp-keys.json``: the public keys by which others check what this server signs."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils.cache import get_conditional_response
from django.utils.http import quote_etag
from django.views.decorators.http import require_safe

from security.domain.key_set import make_key_set
from security.services import get_keyring

MAX_AGE_SECONDS: Final = 5
"""How long the set may be kept: less than a new key is published before it signs."""


@require_safe
def show_key_set(request: HttpRequest) -> HttpResponse:
    """The JWK Set, for anybody."""
    body = msgspec.json.encode(make_key_set(get_keyring().keys))
    etag = quote_etag(hashlib.sha256(body).hexdigest())
    response = HttpResponse(body, content_type="application/jwk-set+json")
    response["Cache-Control"] = f"public, max-age={MAX_AGE_SECONDS}"
    response["ETag"] = etag
    response["Access-Control-Allow-Origin"] = "*"
    return get_conditional_response(request, etag=etag, response=response) or response
