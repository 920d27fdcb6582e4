"""
The admin connection: a superuser session over a Unix socket with trust authentication.

It uses only the simple query protocol, so the emulator needs no database driver.
"""

import asyncio
from pathlib import Path
from typing import Self

from django_lakebase.local.gateway import wire

from .server import SUPERUSER


class SqlError(Exception):
    """PostgreSQL rejected a statement of the emulator."""


class AdminConnection:
    """A superuser connection that runs one query at a time."""

    def __init__(self, socket: Path, database: str) -> None:
        self.socket, self._database = socket, database
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, socket: Path, database: str = "postgres") -> Self:
        """Connect to *database*."""
        connection = cls(socket, database)
        await connection.query("")
        return connection

    async def query(self, sql: str) -> list[list[str | None]]:
        """
        Run *sql*, which may hold several statements, and return the rows.

        Reconnects once if PostgreSQL has closed the connection, as it does when it
        restarts after the crash of a backend.
        """
        async with self._lock:
            if self._writer is None:
                return await self._execute(sql)
            try:
                return await self._execute(sql)
            except (OSError, EOFError):
                return await self._execute(sql)

    async def query_in(self, database: str, sql: str) -> list[list[str | None]]:
        """Run *sql* in another *database* of the same server."""
        connection = await type(self).open(self.socket, database)
        try:
            return await connection.query(sql)
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _execute(self, sql: str) -> list[list[str | None]]:
        try:
            if self._writer is None:
                path = str(self.socket)
                self._reader, self._writer = await asyncio.open_unix_connection(path)
                parameters = {"user": SUPERUSER, "database": self._database}
                self._writer.write(wire.startup(parameters))
                await self._read_result()
            self._writer.write(wire.query(sql))
            return await self._read_result()
        except SqlError:
            raise
        except BaseException:
            # Also on cancellation: the next query must not read a partial result.
            self.close()
            raise

    async def _read_result(self) -> list[list[str | None]]:
        rows, error = [], ""
        while True:
            kind = await self._reader.readexactly(1)
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            body = await self._reader.readexactly(length - 4)
            if kind == b"D":
                rows.append(wire.parse_row(body))
            elif kind == b"E":
                error = wire.parse_error(body)
            elif kind == b"Z":
                if error:
                    raise SqlError(error)
                return rows


def quote_literal(text: str) -> str:
    """Return *text* as a quoted SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    """Return *name* as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
