"""A first agent: it connects, authenticates, searches the server's workspace, and prints what it finds.

    python examples/agent.py [PATTERN]

PATTERN is a regular expression. MCP_URL says where the server is; MCP_API_KEY is the agent's key, by default the one
that the server's first start left in var/first-run/. The one library that it needs is `websockets`.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

URL = os.environ.get("MCP_URL", "ws://127.0.0.1:9000/ws/")
KEY_FILE = Path(__file__).resolve().parent.parent / "var/first-run/agent-api-key"


class Refused(Exception):
    """The server answered with an error."""


def call(socket: ClientConnection, message_type: str, payload: dict[str, Any]) -> Any:
    """Send one message and wait for its answer's payload; progress that comes before is shown."""
    message_id = str(uuid.uuid4())
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    socket.send(json.dumps({"id": message_id, "type": message_type, "payload": payload, "timestamp": timestamp}))
    while True:
        message = json.loads(socket.recv(timeout=60))
        answer, metadata = message["payload"], message.get("metadata") or {}
        if metadata.get("correlation_id") != message_id:
            continue  # it belongs to another message, or to none
        if message["type"] == "error":
            raise Refused(f"{answer['code']}: {answer['message']}")
        if message["type"] != "event":
            return answer
        if answer["event"] == "execution.progress":
            print(f"... {answer['data'].get('message', '')}", file=sys.stderr)


def search(socket: ClientConnection, *, key: str, pattern: str) -> Any:
    """Open a session and run `files.search` in it."""
    call(socket, "handshake", {"protocol_versions": ["1.1"], "client": {"name": "example"}, "features": ["progress"]})
    call(socket, "authentication", {"method": "api_key", "key": key})
    arguments = {"tool": "files.search", "input": {"pattern": pattern, "max_matches": 20}}
    return call(socket, "command", {"command": "tools.execute", "arguments": arguments})["result"]


def main() -> None:
    pattern = " ".join(sys.argv[1:]) or "WebSocket"
    key = os.environ.get("MCP_API_KEY") or (os.access(KEY_FILE, os.R_OK) and KEY_FILE.read_text().strip())
    if not key:
        sys.exit(f"error: set MCP_API_KEY, or start the server once, which writes {KEY_FILE}")
    try:
        with connect(URL, subprotocols=[Subprotocol("mcp.v1.json")]) as socket:
            result = search(socket, key=key, pattern=pattern)
    except Refused as error:
        sys.exit(f"error: {error}")
    except (InvalidURI, InvalidHandshake, ConnectionClosed) as error:
        sys.exit(f"error: {URL}: {error}")
    except OSError as error:  # refused, unknown host, no answer in time
        sys.exit(f"error: no server answers at {URL} ({error}); `make run` starts one")
    found = result["output"]
    for match in found["matches"]:
        print(f"{match['path']}:{match['line']}: {match['text']}")
    more = "" if found["is_complete"] else ", and there are more"
    print(f"{len(found['matches'])} matches{more}; execution {result['execution_id']}")


if __name__ == "__main__":
    main()
