"""A run's events while it lives, as server-sent events (the HTML standard, section 9.2).

Each event's ``id`` is its position in the run's timeline: a client that reconnects goes on behind the last it has. The
stream ends with the run; who connects again then is answered 204, upon which browsers stop.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from msgspec import Meta, Struct

from protocol import dispatch
from protocol.api.doors import require_minimum_level
from protocol.api.openapi import Content, Description, Parameter, Reply, find_fields
from protocol.api.operations import collect_values
from protocol.api.requests import ApiView
from protocol.api.standing import Standing
from protocol.database_threads import get_database_threads, release_request_thread
from protocol.domain.messages import SecurityLevel
from protocol.errors import MCPError
from protocol.hub import get_hub
from protocol.ports import Principal
from tools import selectors, watching
from tools.api import examples
from tools.errors import ExecutionNotFound
from tools.selectors import EventPage
from tools.services import timeline

MAX_STREAM_SECONDS: Final = 600.0
"""Then the stream ends and its client connects again: a stream has no other bound."""
KEEP_ALIVE_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.4
"""How long a revocation, or a stop of the server, is not noticed at most."""
RECONNECT_MS: Final = 1000
STREAM_MEDIA_TYPE: Final = "text/event-stream"


class EventsQuery(Struct, frozen=True, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=0, description="Only events past this position; `Last-Event-ID` goes before it.")] = 0


class StreamedEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event of the stream, by its fields."""

    id: str = ""
    """Its position."""
    event: str = ""
    data: str = ""
    """JSON: the data of the WebSocket's event of that name."""
    retry: int = RECONNECT_MS


class ExecutionEventsView(ApiView):
    """``GET executions/{id}/events/``."""

    def describe_operation(self, method: str) -> Description:  # noqa: ARG002  # it has one
        """As the document tells it."""
        fields, _ = find_fields(EventsQuery)
        return Description(
            id="streamExecutionEvents",
            tag="executions",
            summary="A run's events as they come, as server-sent events.",
            text="The timeline from a position on, then what comes, until the run has ended. Each event's `id` is its "
            "position. Needs `executions.view`.",
            parameters=(
                Parameter(
                    name="execution",
                    place="path",
                    schema={"type": "string", "format": "uuid"},
                    example=examples.STREAM_EVENTS.path["execution"],
                ),
                Parameter(name="after", place="query", schema=fields["after"], example=1),
                Parameter(
                    name="Last-Event-ID",
                    place="header",
                    schema={"type": "integer", "minimum": 0},
                    description="What a client that reconnects has; it goes before `after`.",
                ),
            ),
            replies={
                200: Reply(
                    description="The stream.",
                    content=Content(
                        schema=StreamedEvent,
                        media_types=(STREAM_MEDIA_TYPE,),
                        example=examples.STREAM_EVENTS.answer,
                    ),
                ),
                204: Reply(description="The run has ended, and the client has all of its events."),
            },
        )

    async def get(self, request: HttpRequest, execution: str) -> HttpResponseBase:
        """Stream the run's timeline from a position on."""
        caller = await self.get_caller(request)
        await self.count_command(caller, "executions.get")
        require_minimum_level(SecurityLevel.STANDARD)
        dispatch.resolve(name="executions.get", principal=caller.principal)
        after = read_position(request)
        try:
            execution_id = uuid.UUID(execution)
        except ValueError as error:
            raise ExecutionNotFound(details={"execution_id": execution[:100]}) from error
        page = await read_page(caller.principal, execution_id, after)
        if page.is_over and not page.events:
            return HttpResponse(status=204)
        watching.get_board().check_room()
        response = StreamingHttpResponse(
            stream_events(Standing(caller), execution_id, page), content_type=STREAM_MEDIA_TYPE
        )
        # Proxies that gather answers would hold the events back.
        response["X-Accel-Buffering"] = "no"
        return response


async def stream_events(standing: Standing, execution_id: uuid.UUID, page: EventPage) -> AsyncIterator[bytes]:
    """The stream, beginning with the events of ``page``; it ends early where its caller may not see it any more."""
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    await release_request_thread()
    began_at = last_sent = time.monotonic()
    # Whoever was not told the end connects again, and is told what is the matter.
    with contextlib.suppress(MCPError):
        async with watching.get_board().watch(execution_id) as watch:
            while await standing.holds():
                if page.events:
                    yield b"".join(encode_event(execution_id, event) for event in page.events)
                    last_sent = time.monotonic()
                elif page.is_over or time.monotonic() - began_at > MAX_STREAM_SECONDS or get_hub().is_draining:
                    return
                elif time.monotonic() - last_sent > KEEP_ALIVE_SECONDS:
                    yield b":\n\n"
                    last_sent = time.monotonic()
                if page.events or await watch.wait_for_news(seconds=LOOK_SECONDS):
                    page = await read_page(standing.principal, execution_id, page.position)


async def read_page(principal: Principal, execution_id: uuid.UUID, after: int) -> EventPage:
    """The run's events past a position; asked with the principal's rights each time."""
    return await get_database_threads().run(
        selectors.read_events, principal=principal, execution_id=execution_id, after=after
    )


def encode_event(execution_id: uuid.UUID, event: selectors.EventView) -> bytes:
    """One event as the stream has it, with the data that the WebSocket's event has."""
    is_state = event.kind == selectors.STATE_KIND
    name = timeline.UPDATED_EVENT if is_state else timeline.PROGRESS_EVENT
    data = {"execution_id": str(execution_id), **msgspec.json.decode(event.data), "position": event.position}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, name.encode(), msgspec.json.encode(data))


def read_position(request: HttpRequest) -> int:
    """Where to go on: ``Last-Event-ID``, or the query's ``after``.

    Raises:
        InvalidArguments: it is no position.
    """
    asked = dispatch.convert_text(values=collect_values(request), target=EventsQuery)
    header = request.headers.get("Last-Event-ID")
    if header is not None:
        asked = dispatch.convert_text(values={"after": header}, target=EventsQuery)
    return asked.after
