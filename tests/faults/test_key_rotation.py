"""Whoever rotates keys dies at each step, and others meanwhile: nothing is lost, and the command run again ends it."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import uuid
from typing import Any

import pytest

from security.domain.master_keys import split_master_keys
from tests.faults.harness import FaultyProduct
from tests.services import Product, wait_until

ROTATE_POINTS = [
    "rotate.after_publish",
    "rotate.before_activation",
    "rotate.after_activation",
    "rotate.after_batch",
    "rotate.before_retirement",
]
REWRAP_POINTS = ["rewrap.after_file", "rewrap.before_commit", "rewrap.after_commit"]
OWED = 450
"""Sealed values: more than two batches."""

_BEGIN = """
import json, uuid
from protocol.models import OutboxMessage, Session
from security.models import Account, EncryptionKey
from security.services import check_keys, count_sealed
"""
_OWE = """
from datetime import timedelta
from django.utils import timezone
from uuid_utils.compat import uuid7
account = Account.objects.get(username="agent")
session = Session.objects.create(account=account, credential_id=uuid7(), channel="", security_level="high")
# Its process lives, as far as anybody can see.
Session.objects.filter(id=session.id).update(seen_at=timezone.now() + timedelta(days=1))
for number in range({count}):
    OutboxMessage.objects.create(session=session, sequence=number + 1, correlation_id=f"m-{{number}}", kind="response",
        payload=b"%d" % number)
print(json.dumps(str(session.id)))
"""
_LOOK = f"""
from io import StringIO
from django.core.management import call_command

def look():
    check_keys()
    messages = OutboxMessage.objects.filter(session={{session!r}}).order_by("sequence")
    assert [message.payload for message in messages] == [b"%d" % number for number in range({OWED})]
    keys = EncryptionKey.objects.filter(purpose="at_rest")
    return {{{{
        "active": keys.get(state="active").id,
        "states": sorted(set(keys.values_list("state", flat=True))),
        "left": sum(count_sealed(key_id=key.id) for key in keys.exclude(state="active")),
        "master keys": EncryptionKey.objects.values("master_key_id").distinct().count(),
    }}}}

before = look()
"""
_AGAIN = """
call_command("{command}", stdout=StringIO())
print(json.dumps([before, look()]))
"""


def ask(product: Product, script: str) -> Any:
    """What the script prints last, as JSON."""
    done = product.manage("shell", "--no-imports", "-c", _BEGIN + script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def session_id(faulty: FaultyProduct) -> str:
    """A session that is owed many sealed values."""
    owed: str = ask(faulty.product, _OWE.format(count=OWED))
    return owed


def look(faulty: FaultyProduct, session_id: str) -> dict[str, Any]:
    """The keys, and how many values lie under old ones; fails where a value does not open, or is another."""
    found: dict[str, Any] = ask(faulty.product, f"{_LOOK.format(session=session_id)}print(json.dumps(before))")
    return found


def run_again(faulty: FaultyProduct, session_id: str, command: str) -> list[dict[str, Any]]:
    """What ``look`` finds before and after the command."""
    script = _LOOK.format(session=session_id) + _AGAIN.format(command=command)
    found: list[dict[str, Any]] = ask(faulty.product, script)
    return found


@pytest.mark.parametrize("point", ROTATE_POINTS)
async def test_whoever_rotates_dies_and_it_is_run_again(faulty: FaultyProduct, session_id: str, point: str) -> None:
    armed = faulty.arm(point)
    # The scheduler may be the first to come to a point; the command ends then.
    done = await asyncio.to_thread(faulty.product.manage, "rotate_keys", "--purpose", "at_rest")
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    wait_until(lambda: not armed.exists(), what="somebody's end")
    _, after = await asyncio.to_thread(run_again, faulty, session_id, "rotate_keys")
    assert (after["left"], after["states"]) == (0, ["active", "retired"])


@pytest.mark.parametrize("part", ["web", "worker", "scheduler", "valkey"])
async def test_a_part_is_killed_while_keys_are_rotated(faulty: FaultyProduct, session_id: str, part: str) -> None:
    wait_until(lambda: bool(faulty.list_processes(part)), what=f"a {part}", seconds=60)
    rotating = asyncio.create_task(asyncio.to_thread(run_again, faulty, session_id, "rotate_keys"))
    while not rotating.done():
        faulty.kill(part)
        await asyncio.wait([rotating], timeout=1)
    before, after = await rotating
    assert (after["left"], after["states"]) == (0, ["active", "retired"])
    assert after["active"] != before["active"]
    key = uuid.uuid4().hex
    async with faulty.open_session() as client:
        answer = await client.wait_for_answer(await faulty.mark(client, "again", key))
        assert (await faulty.wait_until_over(client, answer.result["execution_id"]))["state"] == "succeeded"


async def test_without_its_command_a_rotation_ends_by_the_scheduler(faulty: FaultyProduct, session_id: str) -> None:
    before = await asyncio.to_thread(look, faulty, session_id)
    armed = faulty.arm("rotate.after_publish")
    done = await asyncio.to_thread(faulty.product.manage, "rotate_keys", "--purpose", "at_rest")
    assert (done.returncode, armed.exists()) == (-signal.SIGKILL, False)
    give_up_at = time.monotonic() + 60
    while (found := await asyncio.to_thread(look, faulty, session_id))["active"] == before["active"] or found["left"]:
        assert time.monotonic() < give_up_at


@pytest.mark.parametrize("point", REWRAP_POINTS)
async def test_whoever_changes_the_master_key_dies(faulty: FaultyProduct, session_id: str, point: str) -> None:
    path = faulty.product.data_dir / "secrets" / "master_key"
    before = split_master_keys(path.read_text())
    armed = faulty.arm(point)
    done = await asyncio.to_thread(faulty.product.manage, "rotate_master_key")
    assert (done.returncode, armed.exists()) == (-signal.SIGKILL, False), done.stderr
    assert split_master_keys(path.read_text())[-1:] == before, "the old one is still there"
    # Processes that start now start; those that run go on.
    faulty.kill("web")
    async with faulty.open_session() as client:
        await client.check_usable()
    _, found = await asyncio.to_thread(run_again, faulty, session_id, "rotate_master_key")
    after = split_master_keys(path.read_text())
    assert len(after) == 1
    assert after != before
    assert found["master keys"] == 1
