"""REST addresses as commands: which method of which address is which command, and the view that calls it.

An app's ``api/urls.py`` maps addresses to ``make_view(get=Operation(...), post=...)``. Path, query and body together
are the command's arguments; its policy, errors and record are the command's own. What an answer needs besides its
result (a ``Location``, a link to the next page) is the operation's ``render``.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar
from urllib.parse import urlencode

import msgspec
from django.http import HttpRequest, HttpResponse
from msgspec import Struct

from protocol import dispatch
from protocol.api.doors import Call, run_call
from protocol.api.openapi import Content, Description, Parameter, Reply, find_fields, make_query_schema
from protocol.api.problems import make_problem, respond_with_problem
from protocol.api.requests import ApiView, read_object
from protocol.api.responses import respond_with_json
from protocol.domain.messages import ErrorPayload, IdempotencyKey, Priority, ResponsePayload
from protocol.errors import InvalidArguments
from protocol.link import get_now, make_id
from protocol.registry import Command, Deferred, Recorded, Stored, get_command

IDEMPOTENCY_PARAMETER = Parameter(
    name="Idempotency-Key",
    place="header",
    schema={"type": "string", "minLength": 1, "maxLength": 255},
    description="The same request again with the same key within 24 hours gets the answer of the first.",
    example="run-17",
)
REPLAYED_HEADER = "Idempotency-Replayed"


class NoOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an address that takes none."""


class Example(Struct, frozen=True, kw_only=True):
    """A request that works, and its answer, for the OpenAPI document."""

    path: Mapping[str, str] = {}
    query: Mapping[str, Any] = {}
    body: Any = None
    answer: Any


class Answer(Struct, frozen=True, kw_only=True):
    """What a command answered, on its way to be rendered."""

    result: Any
    status: int
    request: HttpRequest
    options: Any
    """The operation's options, typed."""
    call: Call


Render = Callable[[Answer], Awaitable[HttpResponse]]


async def render_result(answer: Answer) -> HttpResponse:
    """The command's result as JSON."""
    return respond_with_json(answer.result, status=answer.status)


async def render_page(answer: Answer) -> HttpResponse:
    """A page of a list, with a link to the next one (RFC 8288)."""
    response = respond_with_json(answer.result, status=answer.status)
    if answer.result.next_cursor is not None:
        query = [(name, value) for name, value in answer.request.GET.lists() if name != "cursor"]
        address = f"{answer.request.path}?{urlencode([*query, ('cursor', answer.result.next_cursor)], doseq=True)}"
        response["Link"] = f'<{answer.request.build_absolute_uri(address)}>; rel="next"'
    return response


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one address."""

    command: str
    id: str
    """The OpenAPI document's ``operationId``."""
    tag: str
    summary: str = ""
    """Where the command's own would mislead."""
    path: Mapping[str, str] = {}
    """The names in the address, and the arguments that they are."""
    fixed: Mapping[str, Any] = {}
    """Arguments that the address stands for."""
    hidden: tuple[str, ...] = ()
    """Arguments that this server refuses, whatever they are."""
    result: type | None = None
    """What ``render`` makes of the command's result, where that is something else."""
    options: type[Struct] = NoOptions
    """The query of a method with a body; without one the query holds arguments."""
    statuses: Mapping[int, str] = MappingProxyType({200: "Done."})
    """The first is what ``render`` is given; the others are what it may make of it."""
    headers: Mapping[str, str] = {}
    """Of the answer, and what each says."""
    render: Render = render_result
    example: Example

    @property
    def status(self) -> int:
        return next(iter(self.statuses))


class CommandView(ApiView):
    """The view of one address; made by ``make_view``."""

    operations: ClassVar[Mapping[str, Operation]] = MappingProxyType({})

    def describe_operation(self, method: str) -> Description:
        """The method's operation as the document tells it."""
        return describe_operation(self.operations[method], has_body=method != "get")

    async def call(self, request: HttpRequest, **path: str) -> HttpResponse:
        """Call the method's command and render its answer."""
        method = "get" if request.method == "HEAD" else (request.method or "").lower()
        operation = self.operations[method]
        caller = await self.get_caller(request)
        await self.count_command(caller, operation.command)
        has_body = method != "get"
        values = {**(read_object(request) if has_body else read_query(request, operation.command))}
        for name, value in {
            **{argument: path[name] for name, argument in operation.path.items()},
            **operation.fixed,
        }.items():
            if name in values:
                raise InvalidArguments("The address says this already.", details={"path": f"arguments.{name}"})
            values[name] = value
        options = dispatch.convert_text(values=collect_values(request), target=operation.options) if has_body else None
        call = Call(
            caller=caller,
            name=operation.command,
            trace_id=self.trace_id,
            message_id=make_id(),
            priority=getattr(options, "priority", Priority.NORMAL),
            idempotency_key=read_idempotency_key(request),
            received_at=get_now(),
        )
        convert = dispatch.convert_values if has_body else dispatch.convert_text
        answer = await run_call(
            call,
            decode=lambda command: convert(values=values, target=command.arguments_type),
        )
        return await self.render(operation, call, answer, request=request, options=options)

    async def render(
        self,
        operation: Operation,
        call: Call,
        payload: ResponsePayload | ErrorPayload,
        *,
        request: HttpRequest,
        options: Any,
    ) -> HttpResponse:
        """The response that says what the payload says."""
        if isinstance(payload, ErrorPayload):
            response = respond_with_problem(make_problem(payload))
        else:
            response = await operation.render(
                Answer(result=payload.result, status=operation.status, request=request, options=options, call=call)
            )
            if payload.duplicate is True:
                response[REPLAYED_HEADER] = "true"
        return response


def make_view(**operations: Operation) -> Callable[..., Any]:
    """The view of an address that takes these methods: ``make_view(get=Operation(...))``."""
    handlers = dict.fromkeys(operations, CommandView.call)
    view = type("CommandView", (CommandView,), {**handlers, "operations": MappingProxyType(operations)})
    made: Callable[..., Any] = view.as_view()  # type: ignore[attr-defined]  # type() gives no better type
    return made


def describe_operation(operation: Operation, *, has_body: bool) -> Description:
    """What the document says of an operation: the command's own words and types."""
    command = get_command(operation.command)
    assert command is not None  # noqa: S101  # a test holds that every operation names one
    fields, required = find_fields(command.arguments_type)
    taken = {*operation.path.values(), *operation.fixed, *operation.hidden}
    free = {name: schema for name, schema in fields.items() if name not in taken}
    example = operation.example
    in_path = [
        Parameter(name=name, place="path", schema=fields[argument], example=example.path.get(name))
        for name, argument in operation.path.items()
    ]
    in_query = find_fields(operation.options)[0] if has_body else free
    parameters = [
        Parameter(
            name=name,
            place="query",
            schema=make_query_schema(schema),
            description=schema.get("description", ""),
            example=example.query.get(name),
        )
        for name, schema in in_query.items()
    ]
    if command.is_changing:
        parameters.append(IDEMPOTENCY_PARAMETER)
    in_body = sorted(required & free.keys())
    body = {"type": "object", "properties": free, "required": in_body, "additionalProperties": False}
    result = Content(schema=operation.result or find_result(command), example=example.answer)
    summary = operation.summary or command.summary.replace("``", "`")
    action = f"Needs `{command.action}`. " if command.action else ""
    return Description(
        id=operation.id,
        tag=operation.tag,
        summary=summary,
        text=f"{summary}\n\n{action}It is the protocol's command `{command.name}`.",
        parameters=(*in_path, *parameters),
        # No body is an empty object: only what must be in it demands one.
        body=Content(schema=body, example=example.body or {}) if has_body and free else None,
        is_body_required=bool(in_body),
        replies={
            status: Reply(description=text, content=result, headers=operation.headers)
            for status, text in operation.statuses.items()
        },
    )


def find_result(command: Command) -> type:
    """The structure that the command's handler returns to a caller without a session."""
    hint = typing.get_type_hints(command.handler)["return"]
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind not in (Deferred, Recorded, Stored)]
    assert len(kinds) == 1  # noqa: S101  # a test makes the whole document
    found: type = kinds[0]
    return found


def read_query(request: HttpRequest, command_name: str) -> dict[str, Any]:
    """The query as arguments: those that are lists may come several times.

    Raises:
        InvalidArguments: another argument comes several times.
    """
    command = get_command(command_name)
    assert command is not None  # noqa: S101  # a test holds that every operation names one
    return collect_values(request, list_names=find_list_names(command.arguments_type))


def collect_values(request: HttpRequest, *, list_names: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The query's values by name."""
    values: dict[str, Any] = {}
    for name, found in request.GET.lists():
        if name in list_names:
            values[name] = found
        elif len(found) == 1:
            values[name] = found[0]
        else:
            raise InvalidArguments("This comes once.", details={"path": f"arguments.{name[:100]}"})
    return values


@lru_cache(maxsize=256)
def find_list_names(arguments_type: type) -> frozenset[str]:
    """The arguments that are arrays."""
    arrays = (msgspec.inspect.VarTupleType, msgspec.inspect.ListType)
    kinds = dispatch.list_field_kinds(arguments_type)
    return frozenset(name for name, options in kinds if any(isinstance(option, arrays) for option in options))


def read_idempotency_key(request: HttpRequest) -> str | None:
    """The ``Idempotency-Key`` header; ``None`` where there is none.

    Raises:
        InvalidArguments: it is empty or too long.
    """
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return None
    try:
        return msgspec.convert(header, IdempotencyKey)
    except msgspec.ValidationError as error:
        raise InvalidArguments("The key has 1 to 255 characters.", details={"path": "Idempotency-Key"}) from error
