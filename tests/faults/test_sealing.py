"""The sealer's process dies between its steps: nothing is lost, and the chain has no fork."""

from __future__ import annotations

import pytest

from tests.faults.harness import FaultyProduct
from tests.services import wait_until

SEALED = """
from security.models import AuditChain, AuditEvent, AuditSeal, UnsealedEvent
chain = AuditChain.objects.get()
print(UnsealedEvent.objects.count(), AuditEvent.objects.count() == AuditSeal.objects.count() == chain.position)
"""

SOON_SECONDS = 5.0
"""The promise is one second on a machine with nothing else to do."""
START_SECONDS = 30.0
RECORD = """
import time
from protocol.ports import Resource
from security.models import AuditSeal
from security.services.audit import record_event

def record(name):
    return record_event(
        action="execution.ended", resource=Resource(kind="execution", name=name), outcome="succeeded"
    )
"""
RECORD_AND_WAIT = f"""{RECORD}
event, began = record("soon"), time.monotonic()
while not AuditSeal.objects.filter(event_id=event.id).exists() and time.monotonic() - began < 60:
    time.sleep(0.02)
print(time.monotonic() - began)
"""
SEAL_BESIDE = f"""{RECORD}
from mcp_site.serving.sealer import Sealer
sealer = Sealer()
sealer.start()
for number in range(1_000):
    record(str(number))
sealer.stop()
print(AuditSeal.objects.count())
"""


@pytest.mark.parametrize(
    "point", ["seal.before_commit", "seal.after_commit", "sign.before_commit", "sign.after_commit"]
)
async def test_the_sealer_dies(faulty: FaultyProduct, point: str) -> None:
    armed = faulty.arm(point)
    async with faulty.open_session() as client:
        await client.call("tools.list", {})
        wait_until(lambda: not armed.exists(), what="the sealer's end", seconds=60)
        await client.call("tools.list", {})
    wait_until(lambda: bool(faulty.list_processes("scheduler")), what="the scheduler's next start", seconds=60)
    wait_until(lambda: ask(faulty, SEALED) == "0 True", what="the seals", seconds=60)
    assert "is as it was sealed" in faulty.product.manage("verify_audit").stdout


async def test_events_are_sealed_soon_also_by_the_next_scheduler(faulty: FaultyProduct) -> None:
    assert float(ask(faulty, RECORD_AND_WAIT)) < SOON_SECONDS
    assert faulty.kill("scheduler")
    assert float(ask(faulty, RECORD_AND_WAIT)) < SOON_SECONDS + START_SECONDS
    assert "is as it was sealed" in faulty.product.manage("verify_audit").stdout


async def test_two_sealers_make_one_chain(faulty: FaultyProduct) -> None:
    assert int(ask(faulty, SEAL_BESIDE)) >= 1_000
    wait_until(lambda: ask(faulty, SEALED) == "0 True", what="the seals", seconds=60)
    assert "is as it was sealed" in faulty.product.manage("verify_audit").stdout


def ask(faulty: FaultyProduct, code: str) -> str:
    """The last line that the code prints."""
    return faulty.product.manage("shell", "--no-imports", "-c", code).stdout.strip()
