"""Mutated requests: the messages over HTTP, and every other operation of the OpenAPI document that takes a body."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2

from tests.client import Encoding
from tests.faults.fuzz.judge import ERROR_FIELDS, Tally, decode, find_leak, judge_message
from tests.faults.fuzz.mutations import EXTREMES, mutate_data
from tests.faults.fuzz.seeds import Seed, Seeds, make_arguments
from tests.services import Product

MESSAGES = "/api/v1/messages/"
MEDIA_TYPES = {Encoding.JSON: "application/json", Encoding.MESSAGEPACK: "application/msgpack"}
ODD_TYPES = ("text/plain", "application/json; charset=utf-7", "", "application/x-www-form-urlencoded", "a/b; c=\x80")
OF_HTTP_SERVER = (b"Invalid HTTP request received.",)
"""What is no HTTP has no view that would answer it."""
UNAVAILABLE = frozenset({503, 504})
"""Statuses from 500 on that are answers, not defects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One that takes a body."""

    method: str
    path: str
    example: Any


def list_operations(document: Any, runs: tuple[str, ...]) -> list[Operation]:
    """The document's operations with a body, beside the messages'."""
    chance = random.Random(2)  # noqa: S311  # repeatable, guards nothing
    definitions = document["components"]["schemas"]
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}) if isinstance(operation, dict) else {}
            if path == MESSAGES or not content:
                continue
            media = next(iter(content.values()))
            example = media.get("example") or make_arguments(media["schema"], chance, runs, definitions=definitions)
            found.append(Operation(method=method.upper(), path=path, example=example))
    return found


@dataclass(kw_only=True)
class RequestFuzzer:
    """Sends requests, each repeatable by its number and the seed."""

    product: Product
    seeds: Seeds
    tally: Tally
    seed: int
    client: httpx2.AsyncClient
    operations: list[Operation] = field(default_factory=list)
    requests: int = 0

    async def discover(self) -> None:
        """Read the document."""
        self.operations = list_operations((await self.client.get("/api/v1/openapi.json")).json(), self.seeds.runs)
        assert self.operations

    async def run_request(self, number: int) -> None:
        """One request and its answer."""
        chance = random.Random(f"{self.seed}-request-{number}")  # noqa: S311  # repeatable, guards nothing
        encoding = chance.choice(tuple(Encoding))
        if chance.random() < 0.5:
            method, path, kind = "POST", MESSAGES, "messages"
            seed = chance.choice(self.seeds.commands if chance.random() < 0.8 else self.seeds.every)
        else:
            encoding = Encoding.JSON
            operation = chance.choice(self.operations)
            method, path, kind = operation.method, self._fill(operation.path, chance), operation.path
            seed = Seed(kind=kind, value=operation.example)
        mutation, data = mutate_data(seed, chance, (*self.seeds.commands, seed), encoding)
        self.requests += 1
        self.tally.sent[f"request: {mutation}"] += 1
        self.tally.kinds[f"{method} {kind}"] += 1
        headers = self._make_headers(encoding, chance)
        try:
            answer = await self.client.request(method, path, content=data, headers=headers)
        except httpx2.HTTPError as error:
            self.tally.find(f"request {number}: {error!r}: {method} {path} {data[:400]!r}")
            return
        self._judge(
            answer,
            f"request {number}: {method} {path} {headers} {data[:400]!r}",
        )

    def _fill(self, path: str, chance: random.Random) -> str:
        """The address with something for each of its parameters."""
        parts = path.split("/")
        for at, part in enumerate(parts):
            if part.startswith("{"):
                likely = self.seeds.runs if "execution" in part else ("text.count_words",)
                value = chance.choice(likely) if likely and chance.random() < 0.6 else str(chance.choice(EXTREMES))
                parts[at] = quote(value[:300], safe="", errors="replace") or "-"
        return "/".join(parts)

    def _make_headers(self, encoding: Encoding, chance: random.Random) -> list[tuple[bytes, bytes]]:
        draw = chance.random()
        bearer = (
            self.seeds.key
            if draw < 0.8
            else chance.choice((self.seeds.token, "mcp_wrong", "a.b.c", "é\x00", "x" * 6_000))
        )
        media_type = MEDIA_TYPES[encoding] if chance.random() < 0.95 else chance.choice(ODD_TYPES)
        headers = [(b"content-type", media_type.encode("latin-1"))]
        if draw < 0.95:
            headers.append((b"authorization", b"Bearer " + bearer.encode("latin-1").replace(b"\x00", b"\x01")))
        if chance.random() < 0.2:
            headers.append((b"idempotency-key", chance.choice((b"one", b"", b"x" * 300, b"\xff"))))
        return headers

    def _judge(self, answer: httpx2.Response, place: str) -> None:
        self.tally.answers[f"HTTP {answer.status_code}"] += 1
        if answer.status_code >= 500 and answer.status_code not in UNAVAILABLE:
            self.tally.find(f"HTTP {answer.status_code}: {answer.text[:500]}\n    {place}")
        if answer.status_code < 400:
            return
        leak = find_leak(answer.text, self.product)
        if leak is not None:
            self.tally.find(f"HTTP {answer.status_code} tells {leak!r}\n    {place}")
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if media_type == "application/problem+json":
            if not ERROR_FIELDS - {"category"} <= {*json.loads(answer.content), "category", "message"}:
                self.tally.find(f"a problem without {ERROR_FIELDS}: {answer.text[:500]}\n    {place}")
        elif media_type in MEDIA_TYPES.values():
            encoding = Encoding.JSON if media_type == MEDIA_TYPES[Encoding.JSON] else Encoding.MESSAGEPACK
            _, fault = judge_message(decode(answer.content, encoding), self.product)
            if fault is not None:
                self.tally.find(f"{fault}\n    {place}")
        elif answer.content not in OF_HTTP_SERVER:
            self.tally.find(f"HTTP {answer.status_code} as {media_type!r}: {answer.text[:300]}\n    {place}")
