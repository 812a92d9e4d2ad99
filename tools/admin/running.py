"""Running a tool from its page: the form, what came of it, and where it leads."""

from __future__ import annotations

import uuid
from typing import Any, Final

from django import forms
from django.core.exceptions import BadRequest
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin

from protocol import ports
from protocol.admin import tell_refusal
from protocol.errors import MCPError
from protocol.link import make_trace_id
from protocol.ports import Principal
from security.admin import get_principal
from tools import selectors, services
from tools.admin.input import FIELDS, JSON, InputForm, has_fields, make_input_form
from tools.admin.labels import TOOL_COLOURS, make_label
from tools.domain.specification import MAX_VERSION_LENGTH
from tools.errors import ToolNotFound
from tools.models import Execution, Tool
from tools.selectors import ToolDescription

TEMPLATE: Final = "admin/tools/tool/run.html"
KEY_PREFIX: Final = "console:"


class SendingForm(forms.Form):
    """What is sent beside the input."""

    version = forms.CharField(max_length=MAX_VERSION_LENGTH)
    way = forms.ChoiceField(choices=[(FIELDS, FIELDS), (JSON, JSON)])
    key = forms.RegexField(r"\A[0-9a-f]{32}\Z")
    """Good for one run, however often the form is sent."""


def show_form(model_admin: ModelAdmin, request: HttpRequest, tool: Tool) -> HttpResponse:
    """The page with the form for the version that the address names.

    Raises:
        Http404: there is no such version, or the account may not see the tool.
    """
    described = _describe(get_principal(request), tool, version=request.GET.get("version"))
    form = make_input_form(schema=described.input_schema, way=request.GET.get("way", FIELDS), data=None)
    return _render(model_admin, request, tool, described, form)


def take_form(model_admin: ModelAdmin, request: HttpRequest, tool: Tool) -> HttpResponse:
    """The way to the run that was accepted; the form again, with what is wrong, where none was.

    Raises:
        BadRequest: what was sent is not what the page sends.
        Http404: as ``show_form``.
    """
    sent = SendingForm(request.POST)
    if not sent.is_valid():
        raise BadRequest("This is not what the page sends.")
    principal = get_principal(request)
    described = _describe(principal, tool, version=sent.cleaned_data["version"])
    form = make_input_form(schema=described.input_schema, way=sent.cleaned_data["way"], data=request.POST)
    if form.is_valid():
        try:
            execution_id = _accept(principal, described, form, key=sent.cleaned_data["key"])
        except MCPError as error:
            form.refuse(error)
        else:
            return HttpResponseRedirect(reverse("admin:tools_execution_change", args=[execution_id]))
    return _render(model_admin, request, tool, described, form)


def _describe(principal: Principal, tool: Tool, *, version: str | None) -> ToolDescription:
    try:
        return selectors.describe_tool(principal=principal, name=tool.name, version=version or None)
    except ToolNotFound as error:
        tell_refusal(error)
        raise Http404 from error


def _accept(principal: Principal, described: ToolDescription, form: InputForm, *, key: str) -> uuid.UUID:
    ports.get_limiter().take_in_thread(principal=principal, command=selectors.EXECUTE_TOOLS)
    return services.accept_execution(
        request=services.ExecutionRequest(
            principal=principal,
            tool=described.name,
            version=described.version,
            input=form.typed.value,
            mode=Execution.Mode.QUEUE,
            idempotency_key=f"{KEY_PREFIX}{key}",
            trace_id=make_trace_id(),
        )
    ).execution_id


def _render(
    model_admin: ModelAdmin, request: HttpRequest, tool: Tool, described: ToolDescription, form: InputForm
) -> HttpResponse:
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "original": tool,
        "title": f"Run {tool.name}",
        "described": described,
        "state": make_label(described.state, colours=TOOL_COLOURS),
        "form": form,
        "has_fields": has_fields(schema=described.input_schema),
        # A new one each time: what was refused may be sent again, changed.
        "key": uuid.uuid4().hex,
    }
    return TemplateResponse(request, TEMPLATE, context)
