"""``http.request`` as a run: accepted, executed by the pipeline over its adapter, recorded."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.utils import timezone
from pytest_httpserver import HTTPServer

from protocol.domain.messages import ErrorPayload
from tools.models import Execution

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("samples", "without_collector"),
    # The default method uses the very signal that ends a tool.
    pytest.mark.timeout(60, method="thread"),
]

Run = Callable[..., Execution]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(host="127.0.0.1") as running:
        yield running


@pytest.fixture
def allow_loopback(settings: Any) -> None:
    settings.MCP = msgspec.structs.replace(settings.MCP, http_allowed_networks=("127.0.0.1/32",))


def get_error(execution: Execution) -> ErrorPayload:
    return msgspec.json.decode(execution.error_json, type=ErrorPayload)


def read_output(execution: Execution) -> dict[str, Any]:
    assert execution.state == "succeeded", execution.error_json
    output: dict[str, Any] = msgspec.json.decode(execution.output_json or "")
    return output


@pytest.mark.usefixtures("allow_loopback")
def test_a_network_that_the_operator_allows_is_reached(run: Run, server: HTTPServer) -> None:
    server.expect_request("/", method="POST", data="hello").respond_with_data("é", status=201)
    output = read_output(run("http.request", {"url": server.url_for("/"), "method": "POST", "body": "hello"}))
    assert (output["status"], output["body"], output["redirects"]) == (201, "é", [])


@pytest.mark.usefixtures("allow_loopback")
def test_an_output_is_cut_to_what_the_server_takes(run: Run, server: HTTPServer) -> None:
    server.expect_request("/").respond_with_data(b"\0" * 2_000_000, content_type="application/octet-stream")
    output = read_output(run("http.request", {"url": server.url_for("/"), "max_response_bytes": 4_000_000}))
    assert output["truncated"] is True


def test_loopback_is_refused_otherwise(run: Run, server: HTTPServer) -> None:
    execution = run("http.request", {"url": server.url_for("/")})
    assert execution.state == "failed"
    assert get_error(execution).code == "tool.execution_failed"
    assert server.log == []


# What ends a run drops the database connection, which takes a test's own transaction with it.
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("allow_loopback")
def test_the_runs_deadline_ends_it_while_it_waits_for_a_server(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        execution = run("http.request", {"url": url}, deadline=timezone.now() + timedelta(seconds=0.5))
    assert execution.state == "timed_out"
