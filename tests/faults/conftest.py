"""What fault tests share: a product of their own, with tools that leave traces, armed failpoints and short leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from security.domain.master_keys import generate_master_key
from tests.faults.harness import FaultyProduct
from tests.ports import choose_product_range
from tests.services import run_product


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups by the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep them on one process: they share a product and would take each other's cores."""
    for item in items:
        if "faulty" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("faults"))


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProduct]:
    """The real product, started once for all fault tests."""
    folder = tmp_path_factory.mktemp("faults")
    # In the data folder with every database, so that the server changes it by itself.
    master_key = folder / "var" / "secrets" / "master_key"
    master_key.parent.mkdir(parents=True, mode=0o700)
    master_key.write_text(generate_master_key())
    master_key.chmod(0o600)
    variables = {
        "MCP_APPS": "tests.fault_tools",
        "MCP_FAILPOINTS": "true",
        "MCP_WORKER_LEASE_SECONDS": "3",
        "MCP_KEY_WAIT_SECONDS": "1",
        "MCP_MASTER_KEY": "",
        "MCP_MASTER_KEY_FILE": str(master_key),
        "MCP_PORT_RANGES": choose_product_range(),
    }
    with run_product(folder / "var", **variables) as product:
        yield FaultyProduct(product=product, trace_dir=Path(folder / "traces"))
