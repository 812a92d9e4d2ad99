"""What the tests of runs share: the sample tools in the registry, an agent, and how to accept and run."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from protocol import sessions
from protocol.domain.messages import ClientInfo
from protocol.models import Session
from security.domain.authorization import AccountPrincipal
from security.selectors import get_account_principal
from tests.factories import create_service
from tools import authoring, services
from tools.models import Execution

WORKER = "worker-1@host"

# The samples are declared once, when their module is imported, and stand in the registry only where a test asks.
_before = dict(authoring._declarations)
import tests.sample_tools.mcp_tools  # noqa: E402, F401  # declares them

SAMPLES = {key: found for key, found in authoring._declarations.items() if key not in _before}
authoring._declarations.clear()
authoring._declarations.update(_before)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """No garbage collection: an interruption that strikes in a callback of it, such as hypothesis's, is lost.

    In a worker the parent's kill ends what goes on; here nobody does.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def declared() -> Iterator[dict[str, authoring.Declaration]]:
    """The registry of declared tools, put back after the test."""
    services.load_tools()
    before = dict(authoring._declarations)
    yield authoring._declarations
    authoring._declarations.clear()
    authoring._declarations.update(before)


@pytest.fixture
def samples(declared: dict[str, authoring.Declaration], db: None) -> None:
    """The sample tools, registered."""
    declared.update(SAMPLES)
    services.synchronise_tools()


@pytest.fixture
def agent(samples: None) -> AccountPrincipal:
    return get_account_principal(account=create_service())


@pytest.fixture
def session(agent: AccountPrincipal) -> Session:
    return sessions.open_session(
        principal=agent, channel="", client=ClientInfo(name="test"), remote_address="127.0.0.1"
    )


@pytest.fixture
def accept(agent: AccountPrincipal) -> Callable[..., Execution]:
    """Accepts a run of a tool; the row."""

    def accept_one(
        tool: str,
        input_value: Any = None,
        *,
        version: str | None = None,
        mode: Execution.Mode = Execution.Mode.WAIT,
        principal: AccountPrincipal = agent,
        session: Session | None = None,
        deadline: datetime | None = None,
        **fields: Any,
    ) -> Execution:
        accepted = services.accept_execution(
            request=services.ExecutionRequest(
                principal=principal,
                tool=tool,
                version=version,
                input={} if input_value is None else input_value,
                mode=mode,
                session_id=None if session is None else session.id,
                message_id=fields.pop("message_id", f"m-{uuid.uuid4()}" if session else ""),
                deadline=deadline or timezone.now() + timedelta(seconds=30),
                trace_id=uuid.uuid4().hex,
                **fields,
            )
        )
        return Execution.objects.get(id=accepted.execution_id)

    return accept_one


@pytest.fixture
def run(accept: Callable[..., Execution]) -> Callable[..., Execution]:
    """Accepts a run and runs it to its end; the row."""

    def run_one(*args: Any, **kwargs: Any) -> Execution:
        execution = accept(*args, **kwargs)
        services.run_execution(execution_id=execution.id, worker=WORKER)
        execution.refresh_from_db()
        return execution

    return run_one
