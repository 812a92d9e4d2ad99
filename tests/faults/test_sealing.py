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


def ask(faulty: FaultyProduct, code: str) -> str:
    """The last line that the code prints."""
    return faulty.product.manage("shell", "--no-imports", "-c", code).stdout.strip()
