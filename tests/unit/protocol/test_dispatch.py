"""From a decoded command to its result: the gate, the arguments, the middleware, the deadline, failures."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from protocol import dispatch
from protocol.database_threads import DatabaseThreads
from protocol.domain.codec import CODECS, JSON_CODEC, MESSAGEPACK_CODEC, Codec
from protocol.domain.messages import Priority, SecurityLevel
from protocol.errors import (
    AccessDenied,
    InternalError,
    InvalidArguments,
    Overloaded,
    StorageUnavailable,
    SystemTimeout,
    UnknownCommand,
)
from protocol.middleware import Step
from protocol.registry import Command, CommandContext, Runs, command, get_command
from tests.factories import allow, deny, make_principal


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n: int
    deep: list[dict[str, int]] = []


class NobodysPeer:
    """A peer that nothing is sent to."""

    def emit(self, event: str, data: Any, *, correlation_id: str | None) -> None: ...

    def close_after_answer(self) -> None: ...

    def describe(self) -> dict[str, Any]:
        return {}


def make_context(**fields: Any) -> CommandContext:
    values: dict[str, Any] = {
        "principal": make_principal(),
        "peer": NobodysPeer(),
        "message_id": "m-1",
        "security_level": SecurityLevel.STANDARD,
        "priority": Priority.NORMAL,
        "deadline": timezone.now() + timedelta(seconds=30),
        "trace_id": "0" * 32,
        **fields,
    }
    return CommandContext(**values)


def register(name: str, handler: Callable[..., Any], **options: Any) -> Command:
    command(name, **options)(handler)
    found = get_command(name)
    assert found is not None
    return found


def double(context: CommandContext, arguments: Arguments) -> int:
    return 2 * arguments.n


# Resolving


def test_an_unknown_command_is_named_in_the_refusal_and_cut() -> None:
    with pytest.raises(UnknownCommand) as refused:
        dispatch.resolve(name="no.such" + "x" * 200, principal=make_principal())
    assert refused.value.details == {"command": ("no.such" + "x" * 200)[:100]}


@pytest.mark.parametrize(
    ("grants", "is_let_in"),
    [
        ([], False),
        ([allow("other.run")], False),
        ([allow("test.run")], True),
        ([allow("test.*", "tool:one")], True),
        ([allow("*"), deny("test.run")], False),
        ([allow("*"), deny("test.run", "tool:one")], True),
    ],
)
def test_a_command_with_an_action_is_only_for_whom_it_may_ever_be_allowed(grants: list[Any], is_let_in: bool) -> None:
    row = register("test.double", double, action="test.run")
    principal = make_principal(grants=grants)
    if is_let_in:
        assert dispatch.resolve(name="test.double", principal=principal) is row
    else:
        with pytest.raises(AccessDenied) as refused:
            dispatch.resolve(name="test.double", principal=principal)
        assert refused.value.details == {"action": "test.run"}


def test_a_command_without_an_action_is_for_everyone() -> None:
    row = register("test.double", double)
    assert dispatch.resolve(name="test.double", principal=make_principal()) is row


# Arguments


def encode(codec: Codec, value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value) if codec.is_text else msgspec.msgpack.encode(value))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, "arguments"),
        (None, "arguments"),
        ([], "arguments"),
        ({"n": "1"}, "arguments.n"),
        ({"n": 1, "m": 2}, "arguments"),
        ({"n": 1, "deep": [{"a": 1}, {"b": "x"}]}, "arguments.deep[1][...]"),
    ],
)
def test_arguments_of_the_wrong_form_are_told_with_their_place(codec: Codec, value: object, path: str) -> None:
    row = register("test.double", double)
    with pytest.raises(InvalidArguments) as refused:
        dispatch.decode_arguments(command=row, codec=codec, raw=encode(codec, value))
    assert refused.value.details == {"path": path}


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
def test_arguments_may_be_left_out_where_none_is_needed(codec: Codec) -> None:
    row = get_command("session.ping")
    assert row is not None
    for raw in (msgspec.Raw(b""), encode(codec, None), encode(codec, {})):
        assert type(dispatch.decode_arguments(command=row, codec=codec, raw=raw)) is row.arguments_type


def test_bad_text_in_arguments_is_refused() -> None:
    row = get_command("tools.list")
    assert row is not None
    with pytest.raises(InvalidArguments):
        dispatch.decode_arguments(command=row, codec=MESSAGEPACK_CODEC, raw=msgspec.Raw(b"\x81\xa5query\xa2\xff\xff"))


# Running


@pytest.mark.django_db(transaction=True)  # the threads may hold connections of earlier tests
async def test_each_kind_of_handler_runs_where_it_says() -> None:
    here = threading.get_ident()

    def find_thread(context: CommandContext, arguments: Arguments) -> int:
        return threading.get_ident()

    async def find_thread_in_task(context: CommandContext, arguments: Arguments) -> int:
        return threading.get_ident()

    arguments = Arguments(n=1)
    inline = register("test.inline", find_thread, runs=Runs.INLINE)
    in_thread = register("test.thread", find_thread)
    as_task = register("test.task", find_thread_in_task)
    assert await dispatch.run(inline, make_context(), arguments) == here
    assert await dispatch.run(as_task, make_context(), arguments) == here
    assert await dispatch.run(in_thread, make_context(), arguments) != here
    assert dispatch.may_run_inline(inline)
    assert not dispatch.may_run_inline(in_thread)
    assert not dispatch.may_run_inline(as_task)


@pytest.mark.django_db(transaction=True)  # the threads may hold connections of earlier tests
async def test_nothing_is_begun_past_its_deadline() -> None:
    calls: list[int] = []

    def record(context: CommandContext, arguments: Arguments) -> None:
        calls.append(arguments.n)

    row = register("test.record", record)
    with pytest.raises(SystemTimeout):
        await dispatch.run(row, make_context(deadline=timezone.now()), Arguments(n=1))
    await dispatch.run(row, make_context(), Arguments(n=2))
    assert calls == [2]


# Middleware

TRAIL: list[str] = []


def outer(step: Step) -> Step:
    async def run(row: Command, context: CommandContext, arguments: Any) -> Any:
        TRAIL.append(f"outer before {row.name}")
        result = await step(row, context, arguments)
        TRAIL.append("outer after")
        return result + 100

    return run


def inner(step: Step) -> Step:
    async def run(row: Command, context: CommandContext, arguments: Any) -> Any:
        TRAIL.append("inner before")
        result = await step(row, context, msgspec.structs.replace(arguments, n=arguments.n + 1))
        TRAIL.append("inner after")
        return result

    return run


def guard(step: Step) -> Step:
    async def run(row: Command, context: CommandContext, arguments: Any) -> Any:
        raise AccessDenied(details={"by": "guard"})

    return run


NOT_CALLABLE = "a text"


@pytest.mark.django_db(transaction=True)  # as above
@pytest.mark.parametrize("runs", Runs)
async def test_middleware_runs_around_every_kind_of_command_outermost_first(use_middleware: Any, runs: Runs) -> None:
    async def double_later(context: CommandContext, arguments: Arguments) -> int:
        return 2 * arguments.n

    TRAIL.clear()
    use_middleware(f"{__name__}.outer", f"{__name__}.inner")
    row = register("test.double", double_later if runs is Runs.AS_TASK else double, runs=runs)
    assert not dispatch.may_run_inline(row)
    assert await dispatch.run(row, make_context(), Arguments(n=1)) == 104
    assert TRAIL == ["outer before test.double", "inner before", "inner after", "outer after"]


async def test_middleware_can_refuse(use_middleware: Any) -> None:
    use_middleware(f"{__name__}.guard", f"{__name__}.outer")
    TRAIL.clear()
    with pytest.raises(AccessDenied):
        await dispatch.run(register("test.double", double), make_context(), Arguments(n=1))
    assert TRAIL == []


@pytest.mark.parametrize("path", ["no.such.module", f"{__name__}.missing", f"{__name__}.NOT_CALLABLE", "nodots"])
async def test_middleware_that_cannot_be_is_named(use_middleware: Any, path: str) -> None:
    use_middleware(path)
    with pytest.raises(ImproperlyConfigured, match=path):
        await dispatch.run(register("test.double", double), make_context(), Arguments(n=1))


# Failures


def test_what_nobody_expected_is_logged_and_told_as_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        told = dispatch.translate_failure(KeyError("secret"), trace_id="t" * 32, command="test.double")
    assert type(told) is InternalError
    assert "secret" not in told.message
    assert not told.details
    (record,) = caplog.records
    assert "t" * 32 in record.getMessage()
    assert "test.double" in record.getMessage()
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


def test_what_was_meant_for_the_peer_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    error = AccessDenied()
    assert dispatch.translate_failure(error, trace_id="t", command="c") is error
    assert caplog.records == []


# Database threads


@pytest.fixture
def threads() -> Iterator[DatabaseThreads]:
    made = DatabaseThreads(count=1, max_backlog=2)
    yield made
    made.stop()


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
async def test_a_database_that_is_gone_is_storage_unavailable(threads: DatabaseThreads, error: type[Exception]) -> None:
    def fail() -> None:
        raise error("password=secret")

    with pytest.raises(StorageUnavailable) as told:
        await threads.run(fail)
    assert "secret" not in told.value.message
    assert told.value.retryable


async def test_the_backlog_is_bounded(threads: DatabaseThreads) -> None:
    release = threading.Event()
    running = [asyncio.create_task(threads.run(release.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as told:
        await threads.run(release.wait)
    assert told.value.retry_after_ms
    release.set()
    assert await asyncio.gather(*running) == [True, True]
    assert await threads.run(release.wait) is True


def test_json_and_messagepack_arguments_are_the_same() -> None:
    row = register("test.double", double)
    decoded = [
        dispatch.decode_arguments(command=row, codec=codec, raw=encode(codec, {"n": 2**53}))
        for codec in (JSON_CODEC, MESSAGEPACK_CODEC)
    ]
    assert decoded == [Arguments(n=2**53)] * 2


def test_a_text_with_nul_is_no_argument() -> None:
    class Arguments(msgspec.Struct):
        name: str
        data: dict[str, str]

    with pytest.raises(InvalidArguments) as caught:
        dispatch.convert_values(values={"name": "a\0", "data": {}}, target=Arguments)
    assert caught.value.details == {"path": "arguments.name"}
    # Data is stored as JSON, which has a way to write it.
    assert dispatch.convert_values(values={"name": "a", "data": {"b": "\0"}}, target=Arguments).name == "a"
