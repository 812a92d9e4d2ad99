"""The project's settings over a data folder of their own: no test run meets another, or the clone's ``var/``.

Each pytest process, a worker of xdist too, loads this once and so has its own folder; ``tests/conftest.py`` removes it.
"""

import os
import tempfile

for _name in [name for name in os.environ if name.startswith("MCP_")]:
    del os.environ[_name]
os.environ["MCP_DATA_DIR"] = tempfile.mkdtemp(prefix="mcp-test-")

from mcp_site.settings import *  # noqa: E402, F403  # read only now that the folder is set
