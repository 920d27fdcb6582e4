"""
Clients that send the gateway random bytes, too many bytes, or none at all.

Each test runs on plain asyncio, and on uvloop if it is installed.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_lakebase.local import certs
from django_lakebase.local.__main__ import find_event_loop
from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.gateway import server as gateway_server
from django_lakebase.local.gateway import wire
from django_lakebase.local.gateway.pgbouncer import PgBouncers
from django_lakebase.local.gateway.relay import MAX_BUFFERED, RelayConnection
from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.postgres.binaries import Binaries
from django_lakebase.local.postgres.computes import Computes
from django_lakebase.local.postgres.launcher import Launcher
from django_lakebase.local.state.model import WorkspaceState
from django_lakebase.local.tokens import Signer, generate_key

HOST = "ep-x.database.local-1.lakebase.test"
SSL_REQUEST = wire.packet(wire.SSL_REQUEST.to_bytes(4, "big"))
CHUNKS = st.lists(st.binary(max_size=40), max_size=6)
# Valid beginnings, after which random bytes reach more code than they do alone.
PREFIXES = st.sampled_from(
    [
        b"",
        wire.startup({"user": "x"}),
        wire.startup({"user": "x"})[:9],
        wire.startup({}),
        wire.packet(wire.GSS_REQUEST.to_bytes(4, "big")),
        wire.packet(wire.CANCEL_REQUEST.to_bytes(4, "big") + b"12345678"),
        (10004).to_bytes(4, "big") + b"\x00\x03\x00\x00user\0",
        # The beginning of a direct TLS handshake.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def run(request):
    """Return a function that runs a coroutine on one of the two event loops."""
    loop_factory = None
    if request.param == "uvloop":
        loop_factory = find_event_loop()
        if loop_factory is None:
            pytest.skip("uvloop is not installed")

    def run(coroutine):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(coroutine)

    return run


@pytest.fixture(scope="module")
def authority():
    """Return the certificate authority of all gateways."""
    return certs.CertificateAuthority()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    """Return the file of the root certificate."""
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca_file.write_bytes(authority.root_pem)
    return ca_file


@pytest.fixture(scope="module")
def contexts(authority):
    """Return the TLS contexts of a gateway."""
    return certs.GatewayContexts(authority, authority, HOST)


@pytest.fixture(scope="module")
def signer():
    """Return one signer for all tests, because generating its key is slow."""
    return Signer(generate_key())


@pytest.fixture(scope="module")
def serve_gateway(contexts, signer, tmp_path_factory):
    """
    Return a context manager that runs a gateway without any PostgreSQL server.

    It yields the gateway and its port. At the end it waits for all tasks of the
    event loop and checks that none of them raised an exception.
    """
    folder = tmp_path_factory.mktemp("data")
    launcher = Launcher(
        binaries=Binaries(folder, 17),
        directory=folder,
        lock=-1,
        is_persistent=False,
        account=None,
    )

    @contextlib.asynccontextmanager
    async def serve():
        tasks = record_tasks()
        gateway = Gateway(
            WorkspaceState(signing_key=""),
            Computes(launcher),
            signer,
            FaultRegistry(),
            contexts,
            pgbouncers=PgBouncers(launcher),
        )
        port = await gateway.start(0)
        try:
            yield gateway, port
            results = await asyncio.gather(*tasks, return_exceptions=True)
            errors = [it for it in results if isinstance(it, BaseException)]
            assert errors == []
        finally:
            gateway.close()

    return serve


def record_tasks():
    """Return a list to which the running loop appends each task that it creates."""
    tasks: list[asyncio.Task[object]] = []

    def create_task(loop, coroutine, **kwargs):
        task = asyncio.Task(coroutine, loop=loop, **kwargs)
        tasks.append(task)
        return task

    asyncio.get_running_loop().set_task_factory(create_task)
    return tasks


def receive(connection, data):
    """Have *connection* receive *data*, as the event loop does."""
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def send(port, chunks, tls_context=None):
    """
    Send *chunks* in separate writes and return the response.

    With *tls_context* they are sent after a TLS handshake, and nothing is returned.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    response = b""
    with contextlib.suppress(OSError):
        if tls_context is not None:
            writer.write(SSL_REQUEST)
            assert await reader.readexactly(1) == b"S"
            await writer.start_tls(tls_context, server_hostname="ep-x.example.com")
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(0)
        if tls_context is None:
            writer.write_eof()
            response = await reader.read()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return response


async def exchange_over_direct_tls(port, tls_context, request, chunk_size):
    """
    Start direct TLS, send *request*, and return the first bytes of the response.

    Each write has at most *chunk_size* bytes.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_context.wrap_bio(incoming, outgoing, server_hostname=HOST)

    async def run_step(step):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return step()
            while data := outgoing.read(chunk_size):
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(0)
            incoming.write(await reader.read(MAX_BUFFERED))

    await run_step(client.do_handshake)
    client.write(request)
    response = await run_step(lambda: client.read(MAX_BUFFERED))
    writer.close()
    await writer.wait_closed()
    return response


@pytest.mark.parametrize("chunk_size", [1, 100, MAX_BUFFERED])
def test_direct_tls_works_however_its_bytes_are_divided(
    run, serve_gateway, ca_file, chunk_size
):
    """The gateway has read some of them when it recognizes TLS by the first byte."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols([certs.ALPN_PROTOCOL])

    async def main():
        async with serve_gateway() as (_, port):
            return await exchange_over_direct_tls(
                port, context, wire.startup({}), chunk_size
            )

    assert b"Parameter 'user' is missing" in run(main())


@settings(deadline=None, max_examples=60)
@given(prefix=PREFIXES, chunks=CHUNKS)
def test_random_bytes_before_tls_raise_no_exception(run, serve_gateway, prefix, chunks):
    async def main():
        async with serve_gateway() as (_, port):
            await send(port, [prefix, *chunks])

    run(main())


@settings(deadline=None, max_examples=30)
@given(prefix=PREFIXES, chunks=CHUNKS)
def test_random_bytes_inside_tls_raise_no_exception(
    run, serve_gateway, ca_file, prefix, chunks
):
    context = ssl.create_default_context(cafile=ca_file)
    context.check_hostname = False

    async def main():
        async with serve_gateway() as (_, port):
            await send(port, [prefix, *chunks], context)

    run(main())


def test_closed_connections_are_freed_without_the_garbage_collector(
    run, serve_gateway, ca_file
):
    """Otherwise the emulator's memory grows with each session."""
    context = ssl.create_default_context(cafile=ca_file)
    context.check_hostname = False
    connections: list[weakref.ref[RelayConnection]] = []

    async def main():
        async with serve_gateway() as (gateway, port):
            gateway.connections = Watched(connections)
            await send(port, [wire.startup({})], context)

    gc.disable()
    try:
        run(main())
        freed = [connection() is None for connection in connections]
    finally:
        gc.enable()

    assert freed == [True]


class Watched(set[RelayConnection]):
    """A set that also appends a weak reference to each of its elements to a list."""

    def __init__(self, references):
        super().__init__()
        self._references = references

    def add(self, element):
        self._references.append(weakref.ref(element))
        super().add(element)


def test_bytes_sent_together_with_the_tls_request_are_rejected(run, serve_gateway):
    """A man in the middle may have injected them (CVE-2021-23214)."""

    async def main():
        async with serve_gateway() as (_, port):
            return await send(port, [SSL_REQUEST + b"select"])

    assert b"Received unencrypted data after SSL request." in run(main())


def test_client_that_resets_in_the_tls_handshake_is_no_longer_counted(
    run, serve_gateway
):
    async def main():
        async with serve_gateway() as (gateway, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SSL_REQUEST)
            await reader.readexactly(1)
            writer.write(b"\x16\x03\x01\x02\x00\x01")
            await writer.drain()
            # The kernel sends a reset if a process dies and leaves bytes unread.
            linger = struct.pack("ii", 1, 0)
            client_socket = writer.get_extra_info("socket")
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return gateway.connections

    assert run(main()) == set()


def test_client_that_sends_nothing_is_disconnected_after_the_login_timeout(
    run, serve_gateway, monkeypatch
):
    monkeypatch.setattr(gateway_server, "LOGIN_TIMEOUT", 0.1)

    async def main():
        async with serve_gateway() as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            response = await reader.read()
            writer.close()
            await writer.wait_closed()
            return response

    assert b"Client handshake timeout." in run(main())


def test_gateway_pauses_reading_while_its_buffer_is_full(run):
    """A client must not fill the emulator's memory."""
    calls = []

    class RecordingTransport(asyncio.Transport):
        def pause_reading(self):
            calls.append("pause")

        def resume_reading(self):
            calls.append("resume")

    async def main():
        connection = RelayConnection(lambda _: None, set())
        connection.connection_made(RecordingTransport())
        for _ in range(3):
            receive(connection, bytes(MAX_BUFFERED // 2))
        assert calls == ["pause"]
        await connection.read(MAX_BUFFERED)

    run(main())
    assert calls == ["pause", "resume"]


def test_final_message_of_the_server_reaches_a_client_that_is_sending(run):
    """
    The relay forwards what the server sent before it closed the connection.

    The client's bytes cannot be written to the closed connection, and asyncio does not
    read from a connection after a failed write.
    """

    async def main():
        loop = asyncio.get_running_loop()
        server_end, server = socket.socketpair()
        client_end, client = socket.socketpair()
        connections = []
        for end in (server_end, client_end):
            end.setblocking(False)
            _, connection = await loop.create_connection(
                lambda: RelayConnection(lambda _: None, set()), sock=end
            )
            connections.append(connection)
        to_server, to_client = connections
        to_client.pair_with(to_server)
        server.sendall(b"terminated")
        server.close()
        # Both sides are readable now; here the event loop handles the client's first.
        receive(to_client, b"SELECT 1")
        with client:
            return await asyncio.to_thread(client.recv, 100)

    assert run(main()) == b"terminated"
