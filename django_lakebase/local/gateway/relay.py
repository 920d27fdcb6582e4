"""
One side of a relayed connection: bytes are read during the login, then forwarded.

This module knows nothing of PostgreSQL.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from typing import cast

# Bytes that a client may send ahead of its login.
MAX_BUFFERED = 65536
READY_AND_IDLE = b"Z\x00\x00\x00\x05I"


class RelayConnection(asyncio.Protocol):
    """
    A connection whose bytes are buffered until it is paired with another.

    *open_connections* holds it as long as it is open.
    """

    def __init__(
        self,
        connected: Callable[["RelayConnection"], None],
        open_connections: set["RelayConnection"],
    ) -> None:
        self._on_connected, self._open_connections = connected, open_connections
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._has_data = asyncio.Event()
        self._is_eof = False
        self._peer: RelayConnection | None = None
        self._is_paused = False
        self.is_secure = False
        self.is_idle = False
        # Which server it leads to.
        self.folder = ""
        # Set when either side has closed the connection.
        self.closed = asyncio.Event()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the first of two, if TLS follows."""
        self._transport = cast("asyncio.Transport", transport)
        self._open_connections.add(self)
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Move *data* to the other side, or keep it until it is read."""
        peer = self._peer
        if peer is not None:
            self.is_idle = peer.is_idle = data.endswith(READY_AND_IDLE)
            peer.write(data)
            return
        self._buffer += data
        self._has_data.set()
        if len(self._buffer) > MAX_BUFFERED and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Close both sides."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the other side go too."""
        self._open_connections.discard(self)
        self._is_eof = True
        self._has_data.set()
        self.closed.set()
        if self._peer is not None:
            if exc is not None and not self.is_secure:
                self._peer.write(self._read_remaining())
            self._peer.close()

    def _read_remaining(self) -> bytes:
        """
        Return what has arrived and asyncio has not read.

        It does not read on after a failed write. A server that ends a session says why
        and closes; its words would be lost where the client sends at that moment.
        """
        transport, data = self._transport, bytearray()
        if transport is not None:
            descriptor = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError):
                while block := os.read(descriptor, MAX_BUFFERED):
                    data += block
        return bytes(data)

    def pause_writing(self) -> None:
        """Stop reading at the other side: this one is slow."""
        peer = self._peer
        if peer is not None and peer._transport is not None:
            with contextlib.suppress(RuntimeError):
                peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on at the other side."""
        peer = self._peer
        if peer is not None and peer._transport is not None and not self._is_paused:
            with contextlib.suppress(RuntimeError):
                peer._transport.resume_reading()

    # What the gateway calls.

    @property
    def is_paired(self) -> bool:
        """Whether the login is over."""
        return self._peer is not None

    @property
    def server_name(self) -> str:
        """The host name that the client asked for in its TLS handshake."""
        transport = self._transport
        secure = transport and transport.get_extra_info("ssl_object")
        return getattr(secure, "lakebase_server_name", None) or ""

    async def read(self, count: int) -> bytes:
        """Return exactly *count* bytes; raises EOFError."""
        while len(self._buffer) < count:
            if self._is_eof:
                raise EOFError
            self._has_data.clear()
            await self._has_data.wait()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        if self._transport is not None:
            self._transport.resume_reading()
        return data

    @property
    def has_unread(self) -> bool:
        """Whether something has arrived that nobody has read."""
        return bool(self._buffer)

    def pause(self, *, on: bool) -> None:
        """Let no byte pass, either way, while *on*."""
        for side in (self, self._peer):
            if side is not None and side._transport is not None:
                side._is_paused = on
                with contextlib.suppress(RuntimeError):
                    if on:
                        side._transport.pause_reading()
                    else:
                        side._transport.resume_reading()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on in TLS, as the server; raises OSError."""
        if self._transport is None or self._buffer:
            # https://www.postgresql.org/support/security/CVE-2021-23214/
            raise EOFError
        loop = asyncio.get_running_loop()
        try:
            secure = await loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=20,
            )
        except BaseException:
            # asyncio tells nobody of a client that is lost in the handshake.
            self.connection_lost(None)
            raise
        self._transport, self.is_secure = secure, True

    def pair_with(self, other: "RelayConnection") -> None:
        """Forward bytes between the two from now on, the buffered ones first."""
        self._peer, other._peer = other, self
        for side, peer in ((self, other), (other, self)):
            if side._buffer:
                peer.write(bytes(side._buffer))
                side._buffer.clear()
            if side._transport is not None:
                side._transport.resume_reading()
            if side._is_eof:
                peer.close()

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close, after what is written has been sent."""
        if self._transport is not None:
            self._transport.close()
            self.closed.set()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()
