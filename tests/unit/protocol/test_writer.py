"""The sending half of a socket: order, one flush at a time, the closing frame last, room for who waits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from protocol.domain.codec import MESSAGEPACK_CODEC
from protocol.domain.states import Close
from protocol.writer import MAX_UNSENT_BYTES, SocketWriter
from tests.wire import Wire, make_ready


class Peer:
    """What arrives at the other end, which may stop reading or be gone."""

    def __init__(self) -> None:
        self.arrived: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_gone = False
        self.was_aborted = False

    async def take(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if self.is_gone:
            raise ConnectionResetError
        self.arrived.append(message)

    def abort(self) -> None:
        self.was_aborted = True

    def list_events(self) -> list[Any]:
        return [
            json.loads(sent["text"])["payload"]["data"] for sent in self.arrived if sent["type"] == "websocket.send"
        ]


@pytest.fixture
def ready() -> Wire:
    return make_ready()


@pytest.fixture
def peer() -> Peer:
    return Peer()


@pytest.fixture
def writer(ready: Wire, peer: Peer) -> SocketWriter:
    return SocketWriter(connection=ready.connection, send=peer.take, abort=peer.abort)


async def test_messages_go_out_in_order_and_the_closing_frame_last(
    ready: Wire, peer: Peer, writer: SocketWriter
) -> None:
    for number in range(3):
        ready.connection.emit("tick", number)
    ready.connection.close(Close.RESTARTING)
    await writer.flush()
    assert peer.list_events() == [0, 1, 2]
    assert peer.arrived[-1]["type"] == "websocket.close"
    assert peer.arrived[-1]["code"] == 1012


async def test_nothing_goes_out_behind_the_closing_frame(ready: Wire, peer: Peer, writer: SocketWriter) -> None:
    ready.connection.close(Close.ASKED_FOR)
    await writer.flush()
    ready.connection.emit("tick", 1)
    await writer.flush()
    assert [sent["type"] for sent in peer.arrived] == ["websocket.close"]


async def test_what_comes_during_a_flush_goes_out_with_it_in_order(
    ready: Wire, peer: Peer, writer: SocketWriter
) -> None:
    peer.reads.clear()
    ready.connection.emit("tick", 1)
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    assert (writer.is_flushing, writer.blocked_since is None) == (True, False)
    ready.connection.emit("tick", 2)
    await writer.flush()
    assert peer.arrived == []
    peer.reads.set()
    await flushing
    assert peer.list_events() == [1, 2]
    assert (writer.is_flushing, writer.blocked_since) == (False, None)


async def test_binary_encodings_go_out_as_bytes(peer: Peer) -> None:
    packed = make_ready(MESSAGEPACK_CODEC)
    packed.connection.emit("tick", 1)
    await SocketWriter(connection=packed.connection, send=peer.take, abort=None).flush()
    assert packed.decode(peer.arrived[0]["bytes"])["payload"]["data"] == 1


async def wait_for_room(ready: Wire, writer: SocketWriter) -> tuple[asyncio.Task[None], asyncio.Task[None]]:
    """Fill the output while a flush is held up; the flush, and one who waits for room."""
    ready.connection.emit("tick", 0)
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    ready.connection.emit("big", "x" * MAX_UNSENT_BYTES)
    waiting = asyncio.create_task(writer.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    return flushing, waiting


async def test_who_waits_for_room_goes_on_when_the_peer_reads(ready: Wire, peer: Peer, writer: SocketWriter) -> None:
    await writer.wait_for_room()
    peer.reads.clear()
    flushing, waiting = await wait_for_room(ready, writer)
    peer.reads.set()
    await asyncio.wait_for(asyncio.gather(flushing, waiting), 5)


async def test_who_waits_for_room_goes_on_when_the_peer_is_gone(ready: Wire, peer: Peer, writer: SocketWriter) -> None:
    peer.reads.clear()
    flushing, waiting = await wait_for_room(ready, writer)
    peer.is_gone = True
    peer.reads.set()
    with pytest.raises(ConnectionResetError):
        await flushing
    await asyncio.wait_for(waiting, 5)


async def test_cutting_off_needs_no_reader(peer: Peer, writer: SocketWriter, ready: Wire) -> None:
    peer.reads.clear()
    writer.cut_off()
    assert peer.was_aborted
    SocketWriter(connection=ready.connection, send=peer.take, abort=None).cut_off()
