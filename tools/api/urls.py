"""This app's part of ``/api/v1/``: which method of which address is which command."""

from __future__ import annotations

from django.urls import path

from protocol.api.operations import Operation, make_view, render_page
from tools.api import examples
from tools.api.events import ExecutionEventsView
from tools.api.execution import ExecutedRun, ExecuteOptions, RetryOptions, render_execution

TOOLS = "tools"
EXECUTIONS = "executions"
LOCATION = {"Location": "The run's address."}
ACCEPTED = {202: "The run is accepted.", 200: "The run has succeeded while the caller waited."}
LINK = {"Link": "The next page, if there is one."}

urlpatterns = [
    path(
        "tools/",
        make_view(
            get=Operation(
                command="tools.list",
                id="listTools",
                tag=TOOLS,
                headers=LINK,
                render=render_page,
                example=examples.LIST_TOOLS,
            )
        ),
        name="tools",
    ),
    path(
        "tools/<str:name>/",
        make_view(
            get=Operation(
                command="tools.describe",
                id="describeTool",
                tag=TOOLS,
                path={"name": "tool"},
                example=examples.DESCRIBE_TOOL,
            )
        ),
        name="tool",
    ),
    path(
        "tools/<str:name>/execute/",
        make_view(
            post=Operation(
                command="tools.execute",
                id="executeTool",
                tag=TOOLS,
                summary="Run a tool; with `wait` its outcome is the answer, if it comes in time.",
                path={"name": "tool"},
                fixed={"mode": "queue"},
                hidden=("context", "dry_run"),
                options=ExecuteOptions,
                result=ExecutedRun,
                statuses=ACCEPTED,
                headers=LOCATION,
                render=render_execution,
                example=examples.EXECUTE_TOOL,
            )
        ),
        name="tool-execute",
    ),
    path(
        "executions/",
        make_view(
            get=Operation(
                command="executions.list",
                id="listExecutions",
                tag=EXECUTIONS,
                headers=LINK,
                render=render_page,
                example=examples.LIST_EXECUTIONS,
            )
        ),
        name="executions",
    ),
    path(
        "executions/<str:execution>/",
        make_view(
            get=Operation(
                command="executions.get",
                id="getExecution",
                tag=EXECUTIONS,
                path={"execution": "execution"},
                example=examples.GET_EXECUTION,
            )
        ),
        name="execution",
    ),
    path(
        "executions/<str:execution>/cancel/",
        make_view(
            post=Operation(
                command="executions.cancel",
                id="cancelExecution",
                tag=EXECUTIONS,
                path={"execution": "execution"},
                example=examples.CANCEL_EXECUTION,
            )
        ),
        name="execution-cancel",
    ),
    path(
        "executions/<str:execution>/retry/",
        make_view(
            post=Operation(
                command="executions.retry",
                id="retryExecution",
                tag=EXECUTIONS,
                path={"execution": "execution"},
                options=RetryOptions,
                result=ExecutedRun,
                statuses=ACCEPTED,
                headers=LOCATION,
                render=render_execution,
                example=examples.RETRY_EXECUTION,
            )
        ),
        name="execution-retry",
    ),
    path("executions/<str:execution>/events/", ExecutionEventsView.as_view(), name="execution-events"),
]
