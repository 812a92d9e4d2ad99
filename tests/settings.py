"""The project's settings over a data folder of their own: no test run meets another, or the clone's ``var/``.

Each pytest process, a worker of xdist too, loads this once and so has its own folder; ``tests/conftest.py`` removes
it. With ``TEST_DATABASE=postgresql`` it has its own PostgreSQL server too, and every product that a test starts a
database there.
"""

import base64
import os
import secrets
import tempfile

from tests.postgresql import start_postgresql

_database = os.environ.get("TEST_DATABASE", "sqlite")
for _name in [name for name in os.environ if name.startswith("MCP_")]:
    del os.environ[_name]
os.environ["MCP_DATA_DIR"] = tempfile.mkdtemp(prefix="mcp-test-")
if _database == "postgresql":
    os.environ["DATABASE_URL"] = start_postgresql()
    os.environ["MCP_SECRET_KEY"] = secrets.token_urlsafe(64)
    os.environ["MCP_MASTER_KEY"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().strip("=")

from mcp_site.settings import *  # noqa: E402, F403  # read only now that the environment is set
