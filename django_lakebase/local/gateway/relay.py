"""
One side of a connection: bytes that are read while it logs in, then moved.

This file knows nothing of PostgreSQL.
"""

import asyncio
import contextlib
import os
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

# Seconds: asyncio's timers are late by up to one millisecond, as epoll counts.
GRAIN = 0.001
# Bytes that a client may send ahead of its login.
MOST_UNREAD = 65536
READY_AND_IDLE = b"Z\x00\x00\x00\x05I"


class Link(asyncio.Protocol):
    """
    A connection whose bytes are buffered until it is joined to another.

    *all_links* holds it as long as it is open.
    """

    def __init__(
        self, connected: Callable[["Link"], None], all_links: set["Link"]
    ) -> None:
        self._on_connected, self._all = connected, all_links
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._is_at_end = False
        self._other: Link | None = None
        self._is_held = False
        self.is_secure = False
        self.is_idle = False
        # Which server it leads to.
        self.folder = ""
        # Set when the client has been hung up on, or has hung up.
        self.over = asyncio.Event()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; the first of two, if TLS follows."""
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Move *data* to the other side, or keep it until it is read."""
        other = self._other
        if other is not None:
            self.is_idle = other.is_idle = data.endswith(READY_AND_IDLE)
            other.write(data)
            return
        self._buffer += data
        self._arrived.set()
        if len(self._buffer) > MOST_UNREAD and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Close both sides."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the other side go too."""
        self._all.discard(self)
        self._is_at_end = True
        self._arrived.set()
        self.over.set()
        if self._other is not None:
            if exc is not None and not self.is_secure:
                self._other.write(self._drain())
            self._other.close()

    def _drain(self) -> bytes:
        """
        Return what has arrived and asyncio has not read.

        It does not read on after a failed write. A server that ends a session says why
        and closes; its words would be lost where the client sends at that moment.
        """
        transport, data = self._transport, bytearray()
        if transport is not None:
            descriptor = transport.get_extra_info("socket").fileno()
            with contextlib.suppress(OSError):
                while block := os.read(descriptor, MOST_UNREAD):
                    data += block
        return bytes(data)

    def pause_writing(self) -> None:
        """Stop reading at the other side: this one is slow."""
        other = self._other
        if other is not None and other._transport is not None:
            with contextlib.suppress(RuntimeError):
                other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on at the other side."""
        other = self._other
        if other is not None and other._transport is not None and not self._is_held:
            with contextlib.suppress(RuntimeError):
                other._transport.resume_reading()

    # What the gateway calls.

    @property
    def is_joined(self) -> bool:
        """Whether the login is over."""
        return self._other is not None

    @property
    def server_name(self) -> str:
        """The host name that the client asked for in its TLS handshake."""
        transport = self._transport
        secure = transport and transport.get_extra_info("ssl_object")
        return getattr(secure, "lakebase_server_name", None) or ""

    async def read(self, count: int) -> bytes:
        """Return exactly *count* bytes; raises EOFError."""
        while len(self._buffer) < count:
            if self._is_at_end:
                raise EOFError
            self._arrived.clear()
            await self._arrived.wait()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        if self._transport is not None:
            self._transport.resume_reading()
        return data

    @property
    def has_unread(self) -> bool:
        """Whether something has arrived that nobody has read."""
        return bool(self._buffer)

    def hold(self, *, on: bool) -> None:
        """Let no byte pass, either way, while *on*."""
        for side in (self, self._other):
            if side is not None and side._transport is not None:
                side._is_held = on
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

    def join(self, other: "Link") -> None:
        """Move bytes between the two from now on, those that are here first."""
        self._other, other._other = other, self
        for link, peer in ((self, other), (other, self)):
            if link._buffer:
                peer.write(bytes(link._buffer))
                link._buffer.clear()
            if link._transport is not None:
                link._transport.resume_reading()
            if link._is_at_end:
                peer.close()

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close, after what is written has been sent."""
        if self._transport is not None:
            self._transport.close()
            self.over.set()

    def abort(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()


class DelayLine(asyncio.Protocol):
    """
    Moves bytes to a port of this machine and back, each way *delay* seconds late.

    All of them are under way at once: throughput is not limited. They stay in order
    also when the delay is changed meanwhile.
    """

    def __init__(self, delay: Callable[[], float], port: int) -> None:
        self._delay, self._port = delay, port
        self._transport: asyncio.Transport | None = None
        self._peer: DelayLine | None = None
        self._early: list[bytes] = []
        self._line: deque[tuple[float, Callable[..., None], tuple[bytes, ...]]] = (
            deque()
        )
        self._latest = 0.0
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect on, unless this is the far end."""
        self._transport = cast("asyncio.Transport", transport)
        if self._peer is None:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Send *data* on when its time has come."""
        if self._peer is None:
            self._early.append(data)
        else:
            self._later(self._peer._write, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end, after what is under way."""
        if self._peer is not None:
            self._later(self._peer._close)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        far = DelayLine(self._delay, 0)
        far._peer = self
        try:
            await loop.create_connection(lambda: far, "127.0.0.1", self._port)
        except OSError:
            self._close()
            return
        self._peer = far
        if self._transport is None or self._transport.is_closing():
            far._close()
        for data in self._early:
            self._later(far._write, data)

    def _later(self, do: Callable[..., None], *arguments: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._latest = max(self._latest, loop.time() + self._delay())
        # One timer at a time: asyncio does not keep those of one moment in order.
        self._line.append((self._latest, do, arguments))
        if len(self._line) == 1:
            self._wait()

    def _let_through(self) -> None:
        loop = asyncio.get_running_loop()
        while self._line and self._line[0][0] <= loop.time():
            _, do, arguments = self._line.popleft()
            do(*arguments)
        if self._line:
            self._wait()

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        wake_at = self._line[0][0] - GRAIN
        if wake_at > loop.time():
            loop.call_at(wake_at, self._let_through)
        else:
            # The last millisecond is spent turning the loop, which serves others too.
            loop.call_soon(self._let_through)

    def pause_writing(self) -> None:
        """Stop reading at the far end: this one is slow."""
        if self._peer is not None and self._peer._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on at the far end."""
        if self._peer is not None and self._peer._transport is not None:
            with contextlib.suppress(RuntimeError):
                self._peer._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
