"""In whose name the console's actions call services. What an action does is its page's."""

from __future__ import annotations

import uuid

from django.http import HttpRequest

from protocol.ports import Principal
from security.admin import get_actor
from security.selectors import get_account_principal


def get_principal(request: HttpRequest) -> Principal:
    """Who is signed in, with what its roles grant at this moment: the console's permissions are another matter."""
    return get_account_principal(account=get_actor(request))


def make_trace_id() -> str:
    """Of one act in the console, as of one message."""
    return uuid.uuid4().hex
