"""The console's pages of sessions and their outboxes, and what every page that is only looked at shares.

An edge: it reads and renders. Nothing here is written by hand: connections write sessions, services write outboxes.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, cast

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin
from unfold.contrib.filters.admin import RadioFilter
from unfold.decorators import display
from unfold.views import ChangeList

from protocol import denials, selectors
from protocol.acting import get_acting
from protocol.domain.states import Close
from protocol.errors import MCPError
from protocol.models import OutboxMessage, Session
from protocol.ports import Door
from protocol.sessions import LOST_AFTER

MAX_LISTED: Final = 10_000
"""Rows that a list can be paged through; whoever looks for older ones filters."""
CLOSE_MEANINGS: Final = MappingProxyType(
    {
        **{close.code: close.value.meaning for close in Close},
        # What is no reason of the server's: the client, or the network between, ended it.
        1001: "the client went away",
        1005: "closed by the client without a code",
        1006: "the connection was lost",
    }
)
SESSION_COLOURS: Final = {"connected": "success", "lost": "warning", "ended": ""}
KIND_COLOURS: Final = {"response": "success", "error": "danger"}


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # not subscriptable at run time
    """Counts no further than ``MAX_LISTED``: of a million rows nobody pages through, counting all is what is slow.

    What a filter that matches little costs is the looking, so it is looked for once: the keys of what is counted are
    kept, and a page reads its rows by them.
    """

    template_name = "console/pagination.html"

    @cached_property
    def _keys(self) -> list[Any]:
        # In the list's own order, so that the index that orders it has the keys too.
        return list(cast("QuerySet[Any]", self.object_list).values_list("pk", flat=True)[: MAX_LISTED + 1])

    @cached_property
    def count(self) -> int:
        return min(len(self._keys), MAX_LISTED)

    @property
    def has_more(self) -> bool:
        """Whether there are rows beyond those that can be paged through."""
        return len(self._keys) > MAX_LISTED

    def list_keys(self, number: int) -> list[Any]:
        """The keys of a page's rows, in order."""
        return self._keys[(number - 1) * self.per_page : min(number * self.per_page, MAX_LISTED)]


class BoundedChangeList(ChangeList):
    """A list that does not say how many rows there are without its filters."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count
        keys = self.paginator.list_keys(self.page_num)
        rows = self.select_rows().in_bulk(keys)
        # One may have gone meanwhile.
        self.result_list = [rows[key] for key in keys if key in rows]

    def select_rows(self) -> QuerySet[Any]:
        """What the page's rows are read from, by their keys."""
        return cast("QuerySet[Any]", self.apply_select_related(self.root_queryset))


class ReadOnlyAdmin(ModelAdmin):
    """Pages of rows that are looked at: no adding, changing or deleting, and lists that are never counted in full."""

    paginator = BoundedPaginator
    list_per_page = 50
    list_max_show_all = 0
    list_filter_submit = True
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = None
    shows_history = False
    """Whether a page leads to what was done with its row by hand."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedChangeList

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["show_history"] = self.shows_history
        rendered: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return rendered

    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, *_args: Any, **_kwargs: Any) -> bool:
        return False


def get_row(model_admin: ModelAdmin, request: HttpRequest, object_id: str) -> Any:
    """The row of an action's address.

    Raises:
        Http404: there is none, or the address names none.
    """
    row = model_admin.get_object(request, object_id)
    if row is None:
        raise Http404
    return row


def tell_refusal(error: MCPError) -> str:
    """What an operator is told of a service's refusal: one for security's sake once it is on record."""
    who = get_acting()
    denial = denials.make_denial(
        error,
        door=Door.CONSOLE,
        remote_address=None if who is None else who.remote_address,
        principal=None if who is None else who.find_principal(),
        kind="request",
        subject="" if who is None else who.request,
        trace_id="" if who is None else who.trace_id,
    )
    told = denials.record_here(denial, error)
    return f"Refused: {told.message} ({told.code})"


def lead_to(model_admin: ModelAdmin, object_id: object) -> HttpResponse:
    """What a dialog's request is answered with: the browser goes to that row's page."""
    options = model_admin.model._meta
    page = reverse(f"admin:{options.app_label}_{options.model_name}_change", args=[object_id])
    return HttpResponse(headers={"HX-Redirect": page})


class ConnectedFilter(RadioFilter):
    title = "connection"
    parameter_name = "connected"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Connected"), ("no", "Ended")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Session]) -> QuerySet[Session]:
        return queryset.filter(ended_at__isnull=self.value() == "yes") if self.value() in ("yes", "no") else queryset


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    list_display = [
        "client",
        "account",
        "state",
        "remote_address",
        "security_level",
        "since",
        "last_seen",
        "how_it_ended",
    ]
    list_filter = [ConnectedFilter]
    list_select_related = ["account"]
    search_fields = ["account__username", "client_name", "remote_address"]
    search_help_text = "Account, client, address or id"
    sortable_by = ["since"]
    list_before_template = "console/refreshing_list.html"
    fieldsets = [
        (None, {"fields": ["state", "account", "client", "remote_address", "security_level", "id"]}),
        ("Time", {"fields": ["created_at", "seen_at", "ended_at", "how_it_ended"]}),
        ("Messages", {"fields": ["last_sequence", "acknowledged_sequence", "owed"]}),
        ("On the server", {"fields": ["credential_id", "channel"]}),
    ]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Session], search_term: str
    ) -> tuple[QuerySet[Session], bool]:
        try:
            return queryset.filter(id=uuid.UUID(search_term)), False
        except ValueError:
            found: tuple[QuerySet[Session], bool] = super().get_search_results(request, queryset, search_term)
            return found

    @display(description="client")
    def client(self, obj: Session) -> str:
        return f"{obj.client_name} {obj.client_version}".strip() or "unnamed"

    @display(description="state", label=SESSION_COLOURS)
    def state(self, obj: Session) -> str:
        if obj.ended_at is not None:
            return "ended"
        return "connected" if obj.seen_at >= timezone.now() - LOST_AFTER else "lost"

    @display(description="since", ordering="created_at")
    def since(self, obj: Session) -> datetime:
        return obj.created_at

    @display(description="last seen")
    def last_seen(self, obj: Session) -> datetime:
        return obj.seen_at

    @display(description="how it ended")
    def how_it_ended(self, obj: Session) -> str | None:
        if obj.ended_at is None:
            return None
        if obj.close_code is None:
            return "its process was lost"
        return f"{obj.close_code}: {CLOSE_MEANINGS.get(obj.close_code, 'a code of the client')}"

    @display(description="messages it is still owed")
    def owed(self, obj: Session) -> int:
        return selectors.count_unacknowledged_messages(session_id=obj.id)


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = ["sequence", "session_label", "kind_label", "correlation_id", "created_at"]
    list_select_related = ["session"]
    search_fields = ["correlation_id"]
    search_help_text = "Id of the command"
    ordering = ["-id"]
    sortable_by: list[str] = []
    fields = ["sequence", "session", "kind_label", "correlation_id", "created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxMessage]:
        queryset: QuerySet[OutboxMessage] = super().get_queryset(request)
        return queryset.defer("payload")

    @display(description="session")
    def session_label(self, obj: OutboxMessage) -> str:
        return f"{obj.session.client_name or 'unnamed'} {str(obj.session_id)[:13]}"

    @display(description="kind", label=KIND_COLOURS)
    def kind_label(self, obj: OutboxMessage) -> str:
        return obj.kind
