"""Mutated frames over WebSocket: episodes of one connection each, brought into a state, then fed in bursts."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass

import msgspec

from tests.client import Encoding
from tests.faults.fuzz.judge import CLOSE_CODES, Tally, find_leak, judge_message
from tests.faults.fuzz.mutations import Frame, encode, make_frame
from tests.faults.fuzz.raw_socket import HandshakeRefused, Opcode, RawSocket, Received, encode_frame, open_raw_socket
from tests.faults.fuzz.seeds import Seed, Seeds, make_message
from tests.services import Product

ANSWER_SECONDS = 20.0
BREATH_SECONDS = 0.05
"""How long a broken frame's close is waited for."""
MAX_BURST = 16
MAX_FRAMES = 60
"""Of one connection."""


@dataclass(kw_only=True)
class SocketFuzzer:
    """Runs episodes. The number of one and the seed bring it again, up to what runs beside it."""

    product: Product
    seeds: Seeds
    tally: Tally
    seed: int
    frames: int = 0
    """How many were sent so far."""

    async def run_episode(self, number: int) -> None:
        """One connection from its upgrade to its end."""
        chance = random.Random(f"{self.seed}-{number}")  # noqa: S311  # repeatable, guards nothing
        encoding = chance.choice(tuple(Encoding))
        try:
            socket = await open_raw_socket(self.product.websocket_url, subprotocol=encoding.value)
        except (HandshakeRefused, OSError) as error:
            self.tally.find(f"episode {number}: no connection: {error!r}")
            return
        episode = Episode(fuzzer=self, number=number, chance=chance, encoding=encoding, socket=socket)
        try:
            await episode.run()
        finally:
            await socket.close()


@dataclass(kw_only=True)
class Episode:
    """One connection."""

    fuzzer: SocketFuzzer
    number: int
    chance: random.Random
    encoding: Encoding
    socket: RawSocket
    is_open: bool = True

    async def run(self) -> None:
        chance = self.chance
        state = chance.choices(("handshaking", "authenticating", "ready"), (15, 15, 70))[0]
        if state != "handshaking":
            await self._send_well(
                "handshake", {"protocol_versions": ["1.1"], "client": {"name": "fuzz"}, "features": ["progress"]}
            )
        if state == "ready":
            await self._send_well("authentication", {"method": "api_key", "key": self.fuzzer.seeds.key})
        left = chance.randint(1, MAX_FRAMES)
        while left and self.is_open:
            burst = [self._make_frame(state) for _ in range(min(left, chance.randint(1, MAX_BURST)))]
            # Nothing is known of what follows a broken frame.
            end = next((at + 1 for at, frame in enumerate(burst) if not frame.is_message), len(burst))
            left = left - end if end == len(burst) and burst[-1].is_message else 0
            await self._send_burst(burst[:end])

    def _make_frame(self, state: str) -> Frame:
        seeds, chance = self.fuzzer.seeds, self.chance
        likely = seeds.openings if state != "ready" else seeds.commands
        pool = likely if chance.random() < 0.7 else seeds.every
        return make_frame(self._choose(pool), chance, seeds.every, self.encoding)

    def _choose(self, pool: tuple[Seed, ...]) -> Seed:
        """A seed, most often with an id of its own, else with one that others have too."""
        seed = self.chance.choice(pool)
        if self.chance.random() < 0.3:
            return seed
        return Seed(kind=seed.kind, value={**seed.value, "id": f"m-{self.chance.getrandbits(40)}"})

    async def _send_well(self, message_type: str, payload: object) -> None:
        data = encode(make_message(message_type, payload), self.encoding)
        opcode = Opcode.TEXT if self.encoding is Encoding.JSON else Opcode.BINARY
        await self._exchange([Frame(kind=message_type, mutation="opening", wire=encode_frame(opcode, data), data=data)])

    async def _send_burst(self, frames: list[Frame]) -> None:
        tally = self.fuzzer.tally
        self.fuzzer.frames += len(frames)
        for frame in frames:
            tally.sent[frame.mutation] += 1
            tally.kinds[frame.kind] += 1
        await self._exchange(frames)

    async def _exchange(self, frames: list[Frame]) -> None:
        """Send the frames in one piece and wait for as many answers as they deserve, or for the end."""
        deserved = sum(frame.is_message for frame in frames)
        is_broken = deserved < len(frames)
        try:
            await self.socket.send(b"".join(frame.wire for frame in frames))
        except ConnectionError:
            self.is_open = False
            return
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while deserved and self.is_open:
                    deserved -= await self._take_answer(frames)
        except TimeoutError:
            self._find(f"{deserved} of {len(frames)} frames got no answer", frames)
            self.is_open = False
        if is_broken:
            await self._wait_for_breath(frames)

    async def _wait_for_breath(self, frames: list[Frame]) -> None:
        """What a broken frame brings about, for a moment."""
        try:
            async with asyncio.timeout(BREATH_SECONDS):
                while self.is_open:
                    await self._take_answer(frames)
        except TimeoutError:
            self.is_open = False

    async def _take_answer(self, frames: list[Frame]) -> int:
        """How many of the frames the next thing that comes answers."""
        received = await self.socket.receive()
        if received is None:
            self.is_open = False
            self.fuzzer.tally.closes["dropped"] += 1
            if all(frame.is_message for frame in frames):
                self._find("the connection was dropped without a closing frame", frames)
            return 0
        if received.opcode == Opcode.CLOSE:
            self._judge_close(received, frames)
            return 0
        if received.opcode not in (Opcode.TEXT, Opcode.BINARY):
            return 0
        if (received.opcode == Opcode.TEXT) != (self.encoding is Encoding.JSON):
            self._find("an answer is a frame of the other kind", frames)
        return sum(self._judge(data, frames) for data in self._split(received.data))

    def _split(self, data: bytes) -> list[bytes]:
        """The messages of a frame; several where batches were agreed."""
        codec = msgspec.json if self.encoding is Encoding.JSON else msgspec.msgpack
        try:
            return [bytes(part) for part in codec.decode(data, type=list[msgspec.Raw])]
        except msgspec.DecodeError:
            return [data]

    def _judge(self, data: bytes, frames: list[Frame]) -> int:
        what, fault = judge_message(data, self.encoding, self.fuzzer.product)
        self.fuzzer.tally.answers[what] += 1
        if fault is not None:
            self._find(fault, frames)
        return what != "event"

    def _judge_close(self, received: Received, frames: list[Frame]) -> None:
        self.is_open = False
        code = received.close_code
        self.fuzzer.tally.closes[str(code)] += 1
        if code not in CLOSE_CODES and not (code is None or self._sent_close(frames)):
            self._find(f"it was closed with {code}", frames)
        leak = find_leak(received.data[2:].decode(errors="replace"), self.fuzzer.product)
        if leak is not None:
            self._find(f"the close's reason tells {leak!r}", frames)

    def _sent_close(self, frames: list[Frame]) -> bool:
        """Whether the client closed first: its own code comes back."""
        return any("close" in frame.mutation or "garbage" in frame.mutation for frame in frames)

    def _find(self, what: str, frames: list[Frame]) -> None:
        shown = [f"{frame.kind}/{frame.mutation}: {frame.data[:300]!r}" for frame in frames]
        place = json.dumps({"episode": self.number, "seed": self.fuzzer.seed, "encoding": self.encoding.value})
        self.fuzzer.tally.find(f"{what} {place}\n    " + "\n    ".join(shown))
