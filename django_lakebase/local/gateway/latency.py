"""
Added latency: a proxy in front of the gateway that delays bytes in both directions.

This module does not depend on PostgreSQL's protocol.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import cast

# Seconds. Timers can be one millisecond late: epoll and uvloop count milliseconds.
TIMER_RESOLUTION = 0.001


class LatencyProxy(asyncio.Protocol):
    """
    One end of a proxied connection to a local port.

    Each direction is delayed by the number of seconds that *delay* returns. Any amount
    of data can be in flight, so the delay does not limit throughput. Bytes stay in
    order even when the delay changes.
    """

    def __init__(self, delay: Callable[[], float], port: int) -> None:
        self._delay, self._port = delay, port
        self._transport: asyncio.Transport | None = None
        self._peer: LatencyProxy | None = None
        self._pending: list[bytes] = []
        self._queue: deque[tuple[float, Callable[..., None], tuple[bytes, ...]]] = (
            deque()
        )
        self._last_send_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the port, unless this is the outgoing end."""
        self._transport = cast("asyncio.Transport", transport)
        if self._peer is None:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Forward *data* after the delay."""
        if self._peer is None:
            self._pending.append(data)
        else:
            self._schedule(self._peer._write, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end after the data in flight has been forwarded."""
        if self._peer is not None:
            self._schedule(self._peer._close)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        outgoing = LatencyProxy(self._delay, 0)
        outgoing._peer = self
        try:
            await loop.create_connection(lambda: outgoing, "127.0.0.1", self._port)
        except OSError:
            self._close()
            return
        self._peer = outgoing
        if self._transport is None or self._transport.is_closing():
            outgoing._close()
        for data in self._pending:
            self._schedule(outgoing._write, data)

    def _schedule(self, callback: Callable[..., None], *arguments: bytes) -> None:
        # Not the time of the event loop, which is in whole milliseconds in uvloop.
        send_at = max(self._last_send_at, time.monotonic() + self._delay())
        self._last_send_at = send_at
        # Only one timer: asyncio does not keep timers for the same time in order.
        self._queue.append((send_at, callback, arguments))
        if len(self._queue) == 1:
            self._set_timer()

    def _flush(self) -> None:
        while self._queue and self._queue[0][0] <= time.monotonic():
            _, callback, arguments = self._queue.popleft()
            callback(*arguments)
        if self._queue:
            self._set_timer()

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        seconds = self._queue[0][0] - time.monotonic() - TIMER_RESOLUTION
        if seconds > 0:
            loop.call_later(seconds, self._flush)
        else:
            # Poll during the last millisecond. The loop still serves other connections.
            loop.call_soon(self._flush)

    def pause_writing(self) -> None:
        """Stop reading from the other end: this end's send buffer is full."""
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        """Resume reading from the other end."""
        if self._peer is not None and self._peer._transport is not None:
            self._peer._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
