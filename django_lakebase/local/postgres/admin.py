"""
The admin connection: as PostgreSQL's superuser, over the socket that trusts us.

The simple query protocol is all that is needed, so the local Lakebase depends on no
driver.
"""

import asyncio
from pathlib import Path
from typing import Self

from django_lakebase.local.gateway import wire

from .server import SUPERUSER


class SqlError(Exception):
    """PostgreSQL refused a statement of ours."""


class AdminConnection:
    """One connection; queries wait for each other."""

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
        Run *sql*, which may be several statements; return the rows.

        A connection that PostgreSQL has closed (it restarts itself after the crash
        of a backend) is opened again.
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
        other = await type(self).open(self.socket, database)
        try:
            return await other.query(sql)
        finally:
            other.close()

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
            # Also when cancelled: the rest of an answer must not meet the next query.
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
    """Return *text* as a literal."""
    return "'" + text.replace("'", "''") + "'"


def quote_identifier(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'
