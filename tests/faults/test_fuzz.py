"""Some thousands of mutated frames and requests, the same each time; ``make fuzz`` sends a hundred thousand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.fuzz.campaign import PRODUCT_VARIABLES, Campaign
from tests.services import Product, run_product

FRAMES = 2_500
SEED = 5

pytestmark = [pytest.mark.own_web_server, pytest.mark.xdist_group("fuzz")]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product whose limits are out of the way."""
    with run_product(tmp_path_factory.mktemp("fuzz") / "var", **PRODUCT_VARIABLES) as product:
        yield product


async def test_mutated_frames_and_requests_do_no_harm(fuzzed: Product, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", logger="httpx2")
    report = await Campaign(product=fuzzed, frames=FRAMES, seed=SEED).run()
    assert not report.tally.findings, "\n".join(report.tally.findings)
    # Else it proves little: much was sent, it got past the first checks, and the bystander was there.
    assert report.frames + report.requests >= FRAMES * 0.9
    assert {"response", "protocol.invalid_arguments", "security.decryption_failed"} <= report.tally.answers.keys()
    assert {"1002", "1009", "4400"} <= report.tally.closes.keys()
    assert report.pings_seconds
