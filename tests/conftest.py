"""What every test may use. How the services are run is in ``tests/services.py``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from django.conf import settings

from protocol.ports import get_recorder
from tests.audit_triggers import let_flush_empty_the_record
from tests.keys import ensure_keys
from tests.ports import choose_product_range
from tests.services import IS_DAPHNE, Product, run_product, run_valkey

TESTS = Path(__file__).parent

# On a busy machine an example may take its time; what is slow by itself is found by the benchmarks.
hypothesis.settings.register_profile("project", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Tests that commit are cleaned up after, the audit record too."""
    let_flush_empty_the_record()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove this process's data folder."""
    shutil.rmtree(settings.MCP.data_dir, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups by the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the shared product on one process, so that it is started once.

    On PostgreSQL leave out what touches no database, since it is the same there.
    """
    for item in items:
        if "product" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("product"))
    if IS_DAPHNE:
        kept = [item for item in items if asks_any_server(item)]
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept
    if settings.MCP.database_url is not None:
        kept = [item for item in items if touches_database(item)]
        config.hook.pytest_deselected(items=list(set(items) - set(kept)))
        items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Denials that another thread has yet to write are written before the database is emptied, not after it."""
    marker = item.get_closest_marker("django_db")
    if marker is not None and marker.kwargs.get("transaction"):
        assert get_recorder().settle(timeout_seconds=10)


def asks_any_server(item: pytest.Item) -> bool:
    """Whether the test asks a running product for what whichever web server does."""
    is_shared = bool({"product", "impatient", "newcomers"} & set(getattr(item, "fixturenames", ())))
    return is_shared and item.get_closest_marker("own_web_server") is None


def touches_database(item: pytest.Item) -> bool:
    """Whether the test has a database, or starts a product, which has one."""
    kind = item.path.relative_to(TESTS).parts[0]
    has_database = item.get_closest_marker("django_db") is not None or "db" in getattr(item, "fixturenames", ())
    return has_database or kind in {"e2e", "faults"}


@pytest.fixture(autouse=True)
def keys_of_the_ring(request: pytest.FixtureRequest) -> None:
    """A test's database has the keys that a started server has."""
    if request.node.get_closest_marker("django_db") or {"db", "transactional_db"} & set(request.fixturenames):
        ensure_keys()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """An embedded Valkey where this process's settings look for the broker: channel layer and Celery work."""
    assert settings.BROKER_SOCKET is not None
    with run_valkey(socket=settings.BROKER_SOCKET, data_dir=settings.MCP.data_dir):
        yield settings.REDIS_URL


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The real product, started once for all tests of this process; what a test changes in it, it changes back.

    With one app beside the product's own: tools that wait, fail and misbehave on demand.
    """
    with run_product(
        tmp_path_factory.mktemp("product") / "var",
        MCP_APPS="tests.sample_tools",
        MCP_REQUESTS_PER_MINUTE="1000000",
        MCP_CONNECTIONS_PER_MINUTE="1000000",
        MCP_CONNECTIONS_PER_ACCOUNT="2000",
        MCP_CONNECTIONS_PER_ADDRESS="2000",
        MCP_SIGN_INS_PER_MINUTE="1000000",
        MCP_PORT_RANGES=choose_product_range(),
        MCP_PORT_LEASES_PER_ACCOUNT="150",
    ) as product:
        yield product
