"""Mutated frames over WebSocket: episodes of one connection each, brought into a state, then fed in bursts."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag

from tests.client import Encoding, get_timestamp
from tests.faults.fuzz.judge import CLOSE_CODES, Tally, decode, find_leak, judge_message
from tests.faults.fuzz.mutations import (
    MAX_DATA_BYTES,
    Frame,
    encode,
    flip_bits,
    make_frame,
    mutate_data,
    mutate_value,
)
from tests.faults.fuzz.raw_socket import HandshakeRefused, Opcode, RawSocket, Received, encode_frame, open_raw_socket
from tests.faults.fuzz.seeds import Seed, Seeds, make_message
from tests.sealing import ClientSealing
from tests.services import Product

ANSWER_SECONDS = 60.0
BREATH_SECONDS = 0.05
"""How long a broken frame's close is waited for."""
LEVELS = {"standard": 5, "high": 2, "critical": 2}
"""Of the connections, in these proportions."""
UNSEALED_SHARE = 0.02
"""Of the frames on a connection where all have to be sealed."""
RESTARTING = 1012
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
    is_server_stopping: bool = False
    """Then connections are refused, and end with 1012."""
    frames: int = 0
    """How many were sent so far."""

    async def run_episode(self, number: int) -> None:
        """One connection from its upgrade to its end."""
        chance = random.Random(f"{self.seed}-{number}")  # noqa: S311  # repeatable, guards nothing
        encoding = chance.choice(tuple(Encoding))
        try:
            socket = await open_raw_socket(
                self.product.websocket_url, subprotocol=encoding.value, address=make_address(number)
            )
        except (HandshakeRefused, OSError) as error:
            self.tally.closes[str(error) if isinstance(error, HandshakeRefused) else type(error).__name__] += 1
            # A server that cannot count who comes, for it is too busy, lets nobody in for a moment.
            is_busy = isinstance(error, HandshakeRefused) and " 429 " in str(error)
            if not (self.is_server_stopping or is_busy):
                self.tally.find(f"episode {number}: no connection: {error!r}")
            await asyncio.sleep(BREATH_SECONDS)
            return
        episode = Episode(fuzzer=self, number=number, chance=chance, encoding=encoding, socket=socket)
        try:
            await episode.run()
        finally:
            await socket.close()


def make_address(number: int) -> str:
    """An address of loopback for the episode: refusals are recorded, and wait for it, by where they are told."""
    return f"127.6.{number // 250 % 250}.{number % 250 + 1}"


@dataclass(kw_only=True)
class Episode:
    """One connection."""

    fuzzer: SocketFuzzer
    number: int
    chance: random.Random
    encoding: Encoding
    socket: RawSocket
    is_open: bool = True

    sealed: ClientSealing | None = None
    session_id: str = ""
    received: list[Any] = field(default_factory=list)
    """The messages of the last exchange, opened."""

    async def run(self) -> None:
        chance = self.chance
        state = chance.choices(("handshaking", "authenticating", "ready"), (15, 15, 70))[0]
        if state != "handshaking":
            await self._shake_hands()
        if state == "ready" and self.is_open:
            await self._authenticate()
        left = chance.randint(1, MAX_FRAMES)
        while left and self.is_open:
            burst = [self._make_frame(state) for _ in range(min(left, chance.randint(1, MAX_BURST)))]
            # Nothing is known of what follows a broken frame.
            end = next((at + 1 for at, frame in enumerate(burst) if not frame.is_message), len(burst))
            left = left - end if end == len(burst) and burst[-1].is_message else 0
            await self._send_burst(burst[:end])

    async def _shake_hands(self) -> None:
        """As the protocol has it, at a level that the server offers."""
        level = self.chance.choices(tuple(LEVELS), tuple(LEVELS.values()))[0]
        payload = {"protocol_versions": ["1.1"], "client": {"name": "fuzz"}, "features": ["progress"]}
        sealed = None
        if level != "standard":
            sealed = ClientSealing(self.encoding, level=level)
            payload |= {"security_level": level, "key_agreement": sealed.make_offer()}
        data = encode(make_message("handshake", payload), self.encoding)
        await self._exchange([self._wrap("handshake", data)])
        answer = self.received[-1] if self.received else None
        if answer is None or answer["type"] != "handshake":
            self._find_wrong_opening(f"the handshake at {level} got {answer}")
        elif sealed is not None:
            answered = answer["payload"]
            sealed.agree(request=data, answer=answered["key_agreement"], connection_id=answered["connection_id"])
            self.sealed = sealed

    async def _authenticate(self) -> None:
        message = make_message("authentication", {"method": "api_key", "key": self.fuzzer.seeds.key})
        if self.sealed is None:
            data = encode(message, self.encoding)
        else:
            data = encode(self.sealed.seal(message), self.encoding)
        await self._exchange([self._wrap("authentication", data)])
        answer = self.received[-1] if self.received else None
        if answer is None or answer["type"] != "authentication":
            self._find_wrong_opening(f"a right key got {answer}")
        else:
            self.session_id = answer["payload"]["session_id"]

    def _find_wrong_opening(self, what: str) -> None:
        self.is_open = False
        if not self.fuzzer.is_server_stopping:
            self._find(what, [])

    def _wrap(self, kind: str, data: bytes) -> Frame:
        opcode = Opcode.TEXT if self.encoding is Encoding.JSON else Opcode.BINARY
        return Frame(kind=kind, mutation="opening", wire=encode_frame(opcode, data), data=data)

    def _make_frame(self, state: str) -> Frame:
        seeds, chance = self.fuzzer.seeds, self.chance
        likely = seeds.openings if state != "ready" else seeds.commands
        pool = likely if chance.random() < 0.7 else seeds.every
        seed = self._choose(pool)
        if self.sealed is None or chance.random() < UNSEALED_SHARE:
            return make_frame(seed, chance, seeds.every, self.encoding)
        return self._make_sealed_frame(seed, self.sealed)

    def _make_sealed_frame(self, seed: Seed, sealed: ClientSealing) -> Frame:
        """A message that is sealed rightly around something mutated, or wrongly around something right."""
        chance, seeds = self.chance, self.fuzzer.seeds
        inner: Any = {"payload": seed.value.get("payload"), "metadata": seed.value.get("metadata")}
        draw = chance.random()
        mutation, plain = "as it is", encode(inner, self.encoding)
        if draw < 0.4:
            mutation, inner = mutate_value(inner, chance, seeds.every)
            plain = encode(inner, self.encoding)
        elif draw < 0.75:
            mutation, plain = mutate_data(Seed(kind=seed.kind, value=inner), chance, seeds.every, self.encoding)
        message = {key: seed.value.get(key, "command") for key in ("id", "type", "timestamp")}
        signature = self._sign({**message, **inner}, sealed) if isinstance(inner, dict) else None
        envelope = sealed.seal({**message, "security": {"signature": signature}}, plaintext=plain)
        data = encode(envelope, self.encoding)
        if draw >= 0.95:
            name, changed = mutate_value(envelope, chance, seeds.every)
            mutation, data = f"outside {name}", encode(changed, self.encoding)
        elif draw >= 0.9:
            mutation, data = "outside flip_bits", flip_bits(data, chance, b"")
        frame = self._wrap(f"{sealed.level} {seed.kind}", data[:MAX_DATA_BYTES])
        return replace(frame, mutation=f"sealed {mutation}")

    def _sign(self, message: dict[str, Any], sealed: ClientSealing) -> str | None:
        """The signature of what is inside; now and then of something else, or none."""
        if sealed.level != "critical" or self.chance.random() < 0.1:
            return None
        if self.chance.random() < 0.1:
            message = {**message, "payload": None}
        message.setdefault("payload", None)
        try:
            return sealed.sign(message, key=self.fuzzer.seeds.signing_key, session_id=self.session_id)
        except (UnicodeEncodeError, OverflowError, RecursionError):
            # What the encoding cannot say cannot be signed either.
            return None

    def _choose(self, pool: tuple[Seed, ...]) -> Seed:
        """A seed of now, most often with an id of its own, else with one that others have too."""
        seed = self.chance.choice(pool)
        value = {**seed.value, "timestamp": get_timestamp()}
        if self.chance.random() < 0.7:
            value["id"] = f"m-{self.chance.getrandbits(40)}"
        return Seed(kind=seed.kind, value=value)

    async def _send_burst(self, frames: list[Frame]) -> None:
        tally = self.fuzzer.tally
        self.fuzzer.frames += len(frames)
        for frame in frames:
            tally.sent[frame.mutation] += 1
            tally.kinds[frame.kind] += 1
        await self._exchange(frames)

    async def _exchange(self, frames: list[Frame]) -> None:
        """Send the frames in one piece and wait for as many answers as they deserve, or for the end."""
        self.received = []
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
            answered = [(message.get("metadata") or {}).get("correlation_id") for message in self.received]
            self._find(f"{deserved} of {len(frames)} frames got no answer, those to {answered} did", frames)
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
        value = self._open(data, frames)
        self.received.append(value)
        what, fault = judge_message(value, self.fuzzer.product)
        self.fuzzer.tally.answers[what] += 1
        if fault is not None:
            self._find(fault, frames)
        return what != "event"

    def _open(self, data: bytes, frames: list[Frame]) -> Any:
        """The message, opened where it is sealed, as everything has to be after a handshake at such a level."""
        value = decode(data, self.encoding)
        if self.sealed is None:
            return value
        try:
            return {**self.sealed.open(data), "security": None}
        except (AssertionError, InvalidTag, KeyError, TypeError, ValueError, StopIteration) as error:
            self._find(f"an answer is not sealed as it should be: {error!r} {value}", frames)
            return value

    def _judge_close(self, received: Received, frames: list[Frame]) -> None:
        self.is_open = False
        code = received.close_code
        self.fuzzer.tally.closes[str(code)] += 1
        if self.fuzzer.is_server_stopping and code == RESTARTING:
            return
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
