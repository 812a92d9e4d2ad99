"""Where the master key comes from: a variable, a file, or what a command prints.

A process reads it when it first needs it, and again when a key turns out to be wrapped by one that it does not know:
so it follows a master key that is changed in the file, or that the command prints anew.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Final

from django.conf import settings

from protocol.errors import Misconfigured
from security.domain.master_keys import MasterKey, MasterKeyInvalid, parse_master_keys

logger = logging.getLogger(__name__)

COMMAND_SECONDS: Final = 20.0
"""How long the command may take."""
REREAD_SECONDS: Final = 5.0
"""How old what was read must be to be read again for a master key that is not in it."""


class MasterKeyUnusable(Misconfigured):
    """The master key cannot be used."""


class _Remembered:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keys: Mapping[str, MasterKey] | None = None
        self.read_at = 0.0


_remembered = _Remembered()


def forget_master_keys() -> None:
    """Have the next one who asks read them anew."""
    global _remembered
    _remembered = _Remembered()


# A child must not inherit a lock that a thread of its parent held.
os.register_at_fork(after_in_child=forget_master_keys)


def get_master_keys(*, key_id: str | None = None) -> Mapping[str, MasterKey]:
    """The master keys by id, the one that wraps first; read once a process, and again where ``key_id`` is lacking.

    Raises:
        MasterKeyUnusable: there is none, or it is none.
    """
    remembered = _remembered
    with remembered.lock:
        is_lacking = key_id is not None and remembered.keys is not None and key_id not in remembered.keys
        if remembered.keys is None or (is_lacking and time.monotonic() - remembered.read_at >= REREAD_SECONDS):
            remembered.keys, remembered.read_at = _read(), time.monotonic()
        return remembered.keys


def get_wrapping_key() -> MasterKey:
    """The master key that wraps, read anew: it may have been changed.

    Raises:
        MasterKeyUnusable: there is none, or it is none.
    """
    forget_master_keys()
    return next(iter(get_master_keys().values()))


def _read() -> Mapping[str, MasterKey]:
    source, text = _read_text()
    try:
        keys = parse_master_keys(text)
    except MasterKeyInvalid as error:
        raise MasterKeyUnusable(f"{source}: expected 32 bytes as base64url") from error
    return {key.id: key for key in keys}


def _read_text() -> tuple[str, str]:
    """The variable that it comes from, and the text."""
    environment = settings.MCP
    if environment.master_key_command:
        return "MCP_MASTER_KEY_COMMAND", _run(environment.master_key_command)
    if environment.master_key_file is not None:
        try:
            return "MCP_MASTER_KEY_FILE", environment.master_key_file.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            raise MasterKeyUnusable(
                f"MCP_MASTER_KEY_FILE: cannot read {environment.master_key_file}: {error.strerror}"
            ) from error
    return "MCP_MASTER_KEY", environment.master_key


def _run(command: str) -> str:
    """What the command prints; what it complains of goes to this process's stderr."""
    try:
        finished = subprocess.run(  # noqa: S603  # the operator's own command, without a shell
            shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=COMMAND_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        reason = f"did not end within {COMMAND_SECONDS:g} s"
    except subprocess.CalledProcessError as error:
        reason = f"ended with exit code {error.returncode}"
    except (OSError, ValueError) as error:
        reason = f"cannot be run: {getattr(error, 'strerror', None) or 'its quotes do not match'}"
    else:
        return finished.stdout.decode("ascii", errors="replace")
    # Outside the handlers: what the command printed must not come along as the error's cause.
    raise MasterKeyUnusable(f"MCP_MASTER_KEY_COMMAND: the command {reason}")
