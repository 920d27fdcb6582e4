"""
Added latency: a proxy in front of the gateway that delays bytes each way.

This module knows nothing of PostgreSQL.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import cast

# Seconds: asyncio's timers are late by up to one millisecond, as epoll counts.
TIMER_RESOLUTION = 0.001


class LatencyProxy(asyncio.Protocol):
    """
    Moves bytes to a port of this machine and back, each way *delay* seconds late.

    All of them are in flight at the same time, so throughput is not limited. They stay
    in order also when the delay changes.
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
        """Connect on, unless this is the far end."""
        self._transport = cast("asyncio.Transport", transport)
        if self._peer is None:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Send *data* on when its time has come."""
        if self._peer is None:
            self._pending.append(data)
        else:
            self._schedule(self._peer._write, data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other end, after what is under way."""
        if self._peer is not None:
            self._schedule(self._peer._close)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        far = LatencyProxy(self._delay, 0)
        far._peer = self
        try:
            await loop.create_connection(lambda: far, "127.0.0.1", self._port)
        except OSError:
            self._close()
            return
        self._peer = far
        if self._transport is None or self._transport.is_closing():
            far._close()
        for data in self._pending:
            self._schedule(far._write, data)

    def _schedule(self, do: Callable[..., None], *arguments: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._last_send_at = max(self._last_send_at, loop.time() + self._delay())
        # One timer at a time: asyncio does not keep those of one moment in order.
        self._queue.append((self._last_send_at, do, arguments))
        if len(self._queue) == 1:
            self._set_timer()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and self._queue[0][0] <= loop.time():
            _, do, arguments = self._queue.popleft()
            do(*arguments)
        if self._queue:
            self._set_timer()

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        wake_at = self._queue[0][0] - TIMER_RESOLUTION
        if wake_at > loop.time():
            loop.call_at(wake_at, self._flush)
        else:
            # The last millisecond is spent turning the loop, which serves others too.
            loop.call_soon(self._flush)

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
