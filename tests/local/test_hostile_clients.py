"""Clients that mean no good: any bytes in any pieces, too many, or none at all."""

import asyncio
import contextlib
import socket
import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_lakebase.local import certs
from django_lakebase.local.faults.registry import FaultRegistry
from django_lakebase.local.gateway import server as gateway_server
from django_lakebase.local.gateway import wire
from django_lakebase.local.gateway.relay import MAX_BUFFERED, RelayConnection
from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.state.model import WorkspaceState

SSL_REQUEST = wire.packet(wire.SSL_REQUEST.to_bytes(4, "big"))
PIECES = st.lists(st.binary(max_size=40), max_size=6)
# Beginnings that lead a parser further than noise would.
BEGINNINGS = st.sampled_from(
    [
        b"",
        wire.startup({"user": "x"}),
        wire.startup({"user": "x"})[:9],
        wire.startup({}),
        wire.packet(wire.GSS_REQUEST.to_bytes(4, "big")),
        wire.packet(wire.CANCEL_REQUEST.to_bytes(4, "big") + b"12345678"),
        (10004).to_bytes(4, "big") + b"\x00\x03\x00\x00user\0",
    ]
)


class Remembered(set[object]):
    """The tasks of a gateway, the finished ones too."""

    def discard(self, task):
        """Forget nothing."""


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """Give a server's TLS context and the file of its authority."""
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    host = "ep-x.database.local-1.lakebase.test"
    return certs.CertificateAuthority(file).server_context(host), file


class NoComputes:
    """No server runs."""

    def find(self, folder):
        return None

    def list_running(self):
        return []


@contextlib.asynccontextmanager
async def serving(context):
    """Run a gateway without servers; give its port, and see that it did not fail."""
    one = Gateway(
        WorkspaceState(signing_key=""),
        NoComputes(),
        None,
        FaultRegistry(),
        context,
        pgbouncers=None,
    )
    tasks = one._tasks = Remembered()
    port = await one.start(0)
    try:
        yield one, port
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r for r in results if r is not None] == []
    finally:
        one.close()


async def send(port, pieces, secure=None):
    """Send *pieces*, one after the other; return what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    with contextlib.suppress(OSError):
        if secure is not None:
            writer.write(SSL_REQUEST)
            assert await reader.readexactly(1) == b"S"
            await writer.start_tls(secure, server_hostname="ep-x.example.com")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if secure is None:
            writer.write_eof()
            got = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return got


@settings(deadline=None, max_examples=60)
@given(beginning=BEGINNINGS, pieces=PIECES)
def test_any_bytes_in_any_pieces(context, beginning, pieces):
    """Each connection ends, and the gateway has made no mistake."""

    async def main():
        async with serving(context[0]) as (_, port):
            await send(port, [beginning, *pieces])

    asyncio.run(main())


@settings(deadline=None, max_examples=30)
@given(beginning=BEGINNINGS, pieces=PIECES)
def test_any_bytes_within_tls(context, beginning, pieces):
    """The same behind the handshake."""
    secure = ssl.create_default_context(cafile=context[1])
    secure.check_hostname = False

    async def main():
        async with serving(context[0]) as (_, port):
            await send(port, [beginning, *pieces], secure)

    asyncio.run(main())


def test_bytes_before_tls_are_an_attack(context):
    """What comes with the request for TLS was not sent by its client."""

    async def main():
        async with serving(context[0]) as (_, port):
            return await send(port, [SSL_REQUEST + b"select"])

    assert b"Received unencrypted data after SSL request." in asyncio.run(main())


def test_a_client_lost_in_its_handshake_is_forgotten(context):
    """It is no open connection any more, and holds none of their places."""

    async def main():
        async with serving(context[0]) as (gateway, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SSL_REQUEST)
            await reader.readexactly(1)
            writer.write(b"\x16\x03\x01\x02\x00\x01")
            await writer.drain()
            # As the system does where a process dies with bytes unread.
            reset = struct.pack("ii", 1, 0)
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            writer.transport.abort()
        return gateway.connections

    assert asyncio.run(main()) == set()


def test_the_silent_are_not_waited_for(context, monkeypatch):
    """Nor are those who stop in the middle."""
    monkeypatch.setattr(gateway_server, "LOGIN_TIMEOUT", 0.1)

    async def main():
        async with serving(context[0]) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            said = await reader.read()
            writer.close()
            await writer.wait_closed()
            return said

    assert b"Client handshake timeout." in asyncio.run(main())


def test_nobody_fills_our_memory():
    """Reading stops until what has arrived is looked at."""
    calls = []

    class Transport:
        def pause_reading(self):
            calls.append("pause")

        def resume_reading(self):
            calls.append("resume")

    async def main():
        connection = RelayConnection(lambda _: None, set())
        connection.connection_made(Transport())
        for _ in range(3):
            connection.data_received(bytes(MAX_BUFFERED // 2))
        assert calls == ["pause"]
        await connection.read(MAX_BUFFERED)

    asyncio.run(main())
    assert calls == ["pause", "resume"]


def test_last_words_of_the_server_arrive_while_the_client_sends():
    """They are not lost with the write that fails, since the server has closed."""

    async def main():
        loop = asyncio.get_running_loop()
        (ours, server), (other, client) = socket.socketpair(), socket.socketpair()
        connections = []
        for end in (ours, other):
            end.setblocking(False)
            _, connection = await loop.create_connection(
                lambda: RelayConnection(lambda _: None, set()), sock=end
            )
            connections.append(connection)
        to_server, to_client = connections
        to_client.pair_with(to_server)
        server.sendall(b"terminated")
        server.close()
        # As if its event came first, when both sides can be read.
        to_client.data_received(b"SELECT 1")
        with client:
            return await asyncio.to_thread(client.recv, 100)

    assert asyncio.run(main()) == b"terminated"
