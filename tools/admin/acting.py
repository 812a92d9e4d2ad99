"""In whose name the console's actions call services, and on which row. What an action does is its page's."""

from __future__ import annotations

import uuid
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from unfold.admin import ModelAdmin

from protocol.ports import Principal
from security.admin import get_actor
from security.selectors import get_account_principal


def get_principal(request: HttpRequest) -> Principal:
    """Who is signed in, with what its roles grant at this moment: the console's permissions are another matter."""
    return get_account_principal(account=get_actor(request))


def make_trace_id() -> str:
    """Of one act in the console, as of one message."""
    return uuid.uuid4().hex


def lead_to(model_admin: ModelAdmin, object_id: object) -> HttpResponse:
    """What a dialog's request is answered with: the browser goes to that row's page."""
    options = model_admin.model._meta
    page = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[object_id])
    return HttpResponse(headers={"HX-Redirect": page})


def get_row(model_admin: ModelAdmin, request: HttpRequest, object_id: str) -> Any:
    """The row of an action's address.

    Raises:
        Http404: there is none, or the address names none.
    """
    row = model_admin.get_object(request, object_id)
    if row is None:
        raise Http404
    return row
