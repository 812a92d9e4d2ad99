"""Starting everything: checks and preparations, in order, up to where this process becomes the supervisor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from django.conf import settings

from mcp_site.serving.listener import bind_listener
from mcp_site.serving.lock import acquire_lock
from mcp_site.serving.parts import PartOptions
from mcp_site.serving.plan import (
    RUN_FILE,
    SCHEDULER_STAGE,
    WEB_STAGE,
    WORKER_STAGE,
    Address,
    BrokerPlan,
    Plan,
    ProcessPlan,
    write_plan,
)
from mcp_site.serving.preflight import check_transport, prepare_data_dir
from mcp_site.serving.preparation import prepare_database
from mcp_site.serving.valkey import make_broker_plan
from mcp_site.settings.environment import Environment
from mcp_site.settings.reading import build_child_environment
from mcp_site.settings.variables import PROJECT_ROOT

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104  # where this machine finds them


def run(options: PartOptions) -> NoReturn:
    """Prepare all, then become the supervisor.

    Raises:
        StartRefused: something does not allow a start; nothing has been started.
    """
    environment = options.environment
    prepare_data_dir(environment)
    lock = acquire_lock(environment.data_dir)
    # One that was killed left it there.
    (environment.data_dir / "run" / RUN_FILE).unlink(missing_ok=True)
    check_transport(environment)
    listener = bind_listener(host=environment.bind, port=environment.port)
    address = Address(
        host=ANY_ADDRESS.get(environment.bind, environment.bind),
        port=listener.getsockname()[1],
        has_tls=environment.tls_cert is not None,
    )
    lock.write_holder(address=address.url)
    prepared = prepare_database(environment)
    os.set_inheritable(lock.descriptor, True)  # noqa: FBT003  # takes no keyword
    plan = Plan(
        data_dir=str(environment.data_dir),
        lock_descriptor=lock.descriptor,
        listener_descriptor=listener.fileno(),
        address=address,
        broker=_plan_broker(environment),
        processes=_plan_processes(options, listener_descriptor=listener.fileno()),
        drain_seconds=environment.drain_seconds,
        banner=_list_banner(environment, address, identity_fingerprint=prepared.identity_fingerprint),
        first_run_dir=str(prepared.first_run_dir) if prepared.first_run_dir is not None else None,
    )
    plan_path = environment.data_dir / "run" / "plan.json"
    write_plan(plan, path=plan_path)
    _become_supervisor(plan_path)


def _become_supervisor(plan_path: Path) -> NoReturn:
    """Replace this process, with all of Django in it, by the small supervisor; pid, lock and socket stay."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(PROJECT_ROOT)
    os.execve(  # noqa: S606  # our own interpreter and module
        sys.executable,
        [sys.executable, "-m", "mcp_site.serving.supervisor", str(plan_path)],
        build_child_environment(supervisor_pid=os.getpid()),
    )


def _plan_broker(environment: Environment) -> BrokerPlan | None:
    if settings.BROKER_SOCKET is None:
        return None
    return make_broker_plan(socket=settings.BROKER_SOCKET, data_dir=environment.data_dir, parent_pid=os.getpid())


def _plan_processes(options: PartOptions, *, listener_descriptor: int) -> tuple[ProcessPlan, ...]:
    serve = (sys.executable, str(PROJECT_ROOT / "manage.py"), "serve")
    worker = ProcessPlan(
        name="worker", command=(*serve, "worker", "--task-workers", str(options.task_workers)), stage=WORKER_STAGE
    )
    scheduler = ProcessPlan(name="scheduler", command=(*serve, "scheduler"), stage=SCHEDULER_STAGE)
    web = (
        ProcessPlan(
            name=f"web.{number}",
            command=(*serve, "web", "--listener", str(listener_descriptor)),
            stage=WEB_STAGE,
            inherits_listener=True,
        )
        for number in range(1, options.web_workers + 1)
    )
    return (worker, scheduler, *web)


def _list_banner(
    environment: Environment, address: Address, *, identity_fingerprint: str
) -> tuple[tuple[str, str], ...]:
    return (
        ("console", f"{address.url}admin/"),
        ("WebSocket", address.websocket_url),
        ("API", f"{address.url}api/v1/"),
        ("identity key", identity_fingerprint),
        ("logs", f"{environment.data_dir / 'log'}/"),
    )
