"""
One side of a relayed connection, which buffers bytes and later forwards them.

How it works. During the login, received bytes wait in a buffer until the gateway reads
them. `pair_with` connects two sides: each side then writes what it receives to its
peer. While the send buffer of one side is full, the other side stops reading, so memory
stays bounded. Everything runs in the event loop's thread and needs no lock. The only
message that this module recognizes is ReadyForQuery, which marks a session as idle.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from typing import cast

# Bytes that a client may send before the gateway reads them.
MAX_BUFFERED = 65536
# ReadyForQuery outside a transaction.
READY_AND_IDLE = b"Z\x00\x00\x00\x05I"
# The memory into which all connections read: the event loop calls `buffer_updated`
# before it reads again. For a `Protocol`, it would allocate 256 KiB for each read.
RECEIVED = memoryview(bytearray(MAX_BUFFERED))


class RelayConnection(asyncio.BufferedProtocol):
    """
    A connection that buffers received bytes until it is paired with another.

    It adds itself to *open_connections*, and removes itself when it is closed.
    """

    def __init__(
        self,
        on_connected: Callable[["RelayConnection"], None],
        open_connections: set["RelayConnection"],
    ) -> None:
        self._on_connected, self._open_connections = on_connected, open_connections
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._has_data = asyncio.Event()
        self._is_eof = False
        self._peer: RelayConnection | None = None
        self._is_paused = False
        self.is_secure = False
        # Whether TLS started without an SSLRequest.
        self.is_direct = False
        self.is_idle = False
        # The folder of the server that the client logs in to.
        self.folder = ""
        # Set when this connection is closed, by the client or by the gateway.
        self.closed = asyncio.Event()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, which `start_tls` may replace later."""
        self._transport = cast("asyncio.Transport", transport)
        self._open_connections.add(self)
        self._on_connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the memory into which asyncio reads the next bytes."""
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        """Forward the *nbytes* received bytes to the peer, or buffer them."""
        data, peer = bytes(RECEIVED[:nbytes]), self._peer
        if peer is not None:
            self.is_idle = peer.is_idle = data.endswith(READY_AND_IDLE)
            peer.write(data)
            return
        self._buffer += data
        self._has_data.set()
        if len(self._buffer) > MAX_BUFFERED:
            self._set_reading(on=False)

    def eof_received(self) -> bool:
        """Let asyncio close the transport, which also closes the peer."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the peer too."""
        self._open_connections.discard(self)
        self._is_eof = True
        self._has_data.set()
        self.closed.set()
        if self._peer is not None:
            if exc is not None and not self.is_secure:
                self._peer.write(self._read_remaining())
            self._peer.close()
        # Break the reference cycles, which would wait for the garbage collector.
        self._transport = self._peer = None

    def _read_remaining(self) -> bytes:
        """
        Return bytes that have arrived and that asyncio has not read.

        asyncio stops reading when a write fails. A server that ends a session sends the
        reason and closes; without this, a client that is sending would not get it.
        """
        transport, data = self._transport, bytearray()
        if transport is not None:
            descriptor = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError):
                while block := os.read(descriptor, MAX_BUFFERED):
                    data += block
        return bytes(data)

    def pause_writing(self) -> None:
        """Stop reading from the peer: this side's send buffer is full."""
        if self._peer is not None:
            self._peer._set_reading(on=False)

    def resume_writing(self) -> None:
        """Resume reading from the peer."""
        if self._peer is not None and not self._is_paused:
            self._peer._set_reading(on=True)

    def _set_reading(self, *, on: bool) -> None:
        if self._transport is not None and on:
            self._transport.resume_reading()
        elif self._transport is not None:
            self._transport.pause_reading()

    # Called by the gateway.

    @property
    def is_paired(self) -> bool:
        """Whether the login is complete and bytes are forwarded."""
        return self._peer is not None

    @property
    def server_name(self) -> str:
        """The host name in the client's TLS handshake (SNI), or an empty string."""
        transport = self._transport
        secure = transport and transport.get_extra_info("ssl_object")
        return getattr(secure, "lakebase_server_name", None) or ""

    @property
    def alpn_protocol(self) -> str:
        """The protocol that the TLS handshake agreed on (ALPN), or an empty string."""
        transport = self._transport
        secure = transport and transport.get_extra_info("ssl_object")
        return (secure and secure.selected_alpn_protocol()) or ""

    async def peek(self, count: int) -> bytes:
        """Return *count* bytes, and keep them. Raises EOFError as `read` does."""
        while len(self._buffer) < count:
            if self._is_eof:
                raise EOFError
            self._has_data.clear()
            await self._has_data.wait()
        return bytes(self._buffer[:count])

    async def read(self, count: int) -> bytes:
        """Return exactly *count* bytes. Raises EOFError if the client closes first."""
        data = await self.peek(count)
        del self._buffer[:count]
        self._set_reading(on=True)
        return data

    @property
    def has_unread(self) -> bool:
        """Whether the buffer holds bytes that have not been read."""
        return bool(self._buffer)

    def pause(self, *, on: bool) -> None:
        """Stop forwarding in both directions if *on*, else resume."""
        for side in (self, self._peer):
            if side is not None:
                side._is_paused = on
                side._set_reading(on=not on)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """
        Start TLS on this connection, as the server. Raises OSError or EOFError.

        Bytes in the buffer are the beginning of the client's handshake.
        """
        transport = self._transport
        if transport is None:
            raise EOFError
        loop = asyncio.get_running_loop()
        if self._buffer:
            # Runs after `start_tls` has set the TLS protocol and paused reading, and
            # before the callbacks that start the handshake and resume reading.
            loop.call_soon(self._pass_to_tls, transport)
        try:
            secure = await loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=20
            )
        except BaseException:
            # asyncio does not call connection_lost if the handshake fails.
            transport.abort()
            self.connection_lost(None)
            raise
        self._transport, self.is_secure = secure, True

    def _pass_to_tls(self, transport: asyncio.Transport) -> None:
        protocol = cast("asyncio.BufferedProtocol", transport.get_protocol())
        count = len(self._buffer)
        memoryview(protocol.get_buffer(count))[:count] = self._buffer
        self._buffer.clear()
        protocol.buffer_updated(count)

    def pair_with(self, other: "RelayConnection") -> None:
        """Forward the buffered bytes, and then all bytes between the connections."""
        self._peer, other._peer = other, self
        for side, peer in ((self, other), (other, self)):
            if side._buffer:
                peer.write(bytes(side._buffer))
                side._buffer.clear()
            side._set_reading(on=True)
            if side._is_eof:
                peer.close()

    def write(self, data: bytes) -> None:
        """Send *data*, unless the connection is closing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after the send buffer has been sent."""
        if self._transport is not None:
            self._transport.close()
            self.closed.set()

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        if self._transport is not None:
            self._transport.abort()
