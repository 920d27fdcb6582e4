"""
Our own way into PostgreSQL: as its superuser, over the socket that trusts us.

The simple query protocol is all that is needed, so the local Lakebase depends on no
driver.
"""

import asyncio
from pathlib import Path
from typing import Self

from . import wire
from .postgres import SUPERUSER


class SqlError(Exception):
    """PostgreSQL refused a statement of ours."""


class Backdoor:
    """One connection; queries wait for each other."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._reader, self._writer = reader, writer
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, socket: Path, database: str = "postgres") -> Self:
        """Connect to *database*."""
        reader, writer = await asyncio.open_unix_connection(str(socket))
        door = cls(reader, writer)
        writer.write(wire.startup({"user": SUPERUSER, "database": database}))
        await door._answer()
        return door

    async def query(self, sql: str) -> list[list[str | None]]:
        """Run *sql*, which may be several statements; return the rows."""
        async with self._lock:
            self._writer.write(wire.query(sql))
            return await self._answer()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    async def _answer(self) -> list[list[str | None]]:
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


def quoted(text: str) -> str:
    """Return *text* as a literal."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'
