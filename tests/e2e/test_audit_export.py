"""An export of the running product verifies by the key set that it publishes, and by nothing else of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.client import open_session
from tests.services import PROJECT_ROOT, Product


def verify(export: Path, keys: Path) -> subprocess.CompletedProcess[str]:
    """As somebody else does, elsewhere."""
    return subprocess.run(
        [sys.executable, "-I", PROJECT_ROOT / "examples" / "verify_audit_export.py", export, keys],
        cwd=export.parent,
        capture_output=True,
        text=True,
        check=False,
    )


async def test_an_export_verifies_by_the_published_keys(product: Product, tmp_path: Path) -> None:
    async with open_session(product.websocket_url, product.agent_api_key) as client:
        await client.call("tools.list", {})
    exported = product.manage("export_audit", "--output", str(tmp_path / "audit.jsonl"))
    assert exported.returncode == 0, exported.stderr
    status, body = product.get("/.well-known/mcp-keys.json")
    assert status == 200
    (tmp_path / "keys.json").write_bytes(body)

    whole = verify(tmp_path / "audit.jsonl", tmp_path / "keys.json")
    assert (whole.returncode, whole.stdout) == (0, "The export is what was sealed and signed.\n"), whole.stderr

    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines, start=1) if b"accounts.authenticate" in line)
    for was, becomes in ((b"accounts.authenticate", b"accounts.authenticatf"), (b'{"position"', b'{position"')):
        changed = [line.replace(was, becomes, 1) if n == number else line for n, line in enumerate(lines, start=1)]
        (tmp_path / "changed.jsonl").write_bytes(b"".join(changed))
        found = verify(tmp_path / "changed.jsonl", tmp_path / "keys.json")
        assert found.returncode in (1, 2)
        assert found.stdout.splitlines()[0].startswith(f"line {number}: ")
