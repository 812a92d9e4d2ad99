"""What the REST answer to a call of a tool is: the accepted run, or, where the caller waits, what came of it."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
from django.http import HttpResponse
from django.urls import reverse
from msgspec import UNSET, Meta, Struct, UnsetType

from protocol.api.operations import Answer
from protocol.api.problems import make_problem, respond_with_problem
from protocol.api.responses import respond_with_json
from protocol.database_threads import release_request_thread
from protocol.domain.messages import ErrorPayload, Priority
from tools import watching

MAX_WAIT_SECONDS = 60


class ExecuteOptions(Struct, frozen=True, forbid_unknown_fields=True):
    wait: Annotated[
        float, Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the run's end before it is answered.")
    ] = 0
    priority: Annotated[Priority, Meta(description="How urgent the run is.")] = Priority.NORMAL


class RetryOptions(Struct, frozen=True, forbid_unknown_fields=True):
    wait: Annotated[
        float, Meta(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for the run's end before it is answered.")
    ] = 0


class ExecutedRun(Struct, frozen=True, kw_only=True):
    """A run that was accepted; with its output where the caller waited for its success."""

    execution_id: str
    state: str
    output: Any | UnsetType = UNSET


async def render_execution(answer: Answer) -> HttpResponse:
    """202 with the run's address; or, where it ended while the caller waited, 200 or the problem that it ended with."""
    run = msgspec.convert(answer.result, ExecutedRun, from_attributes=True)
    response: HttpResponse | None = None
    if answer.options.wait:
        await release_request_thread()
        ended = await watching.wait_for_answer(answer.options.wait, execution_id=uuid.UUID(run.execution_id))
        if isinstance(ended, ErrorPayload):
            response = respond_with_problem(make_problem(ended))
        elif ended is not None:
            response = respond_with_json(ended.result, status=200)
    response = response or respond_with_json(run, status=answer.status)
    response["Location"] = answer.request.build_absolute_uri(reverse("execution", args=[run.execution_id]))
    return response
