"""
What the writers know: a line of JSON for each unit that begins, and each that ends.

A unit without an end (its process was killed) is one whose outcome is unknown.
"""

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a writer knows of its unit."""

    ACKNOWLEDGED = "acknowledged"
    # Never sent, or rolled back for sure.
    REFUSED = "refused"
    # The answer to a statement or a COMMIT was lost.
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Unit:
    """A piece of work: *parts* rows under one key, all or none."""

    key: str
    writer: int
    alias: str
    kind: str
    parts: int
    began: float
    ended: float = 0.0
    outcome: str = Outcome.UNKNOWN
    # Seconds until there was a connection, or none was given.
    connecting: float = 0.0
    # Seconds of it that are this machine's, which was busy.
    late: float = 0.0
    phase: str = ""
    error: dict[str, Any] | None = None


class Journal:
    """Appends to one file, which several processes may share."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line, /, **values):
        """Append one *line* of some sort."""
        text = json.dumps({"line": line, **values}) + "\n"
        os.write(self._file, text.encode())


def read(folder):
    """Return the units, and the lines of other kinds, of all journals in *folder*."""
    units, others = {}, []
    for path in sorted(folder.glob("*.journal")):
        for line in path.read_text().splitlines():
            values = json.loads(line)
            kind = values.pop("line")
            if kind == "unit":
                unit = Unit(**values)
                units[unit.key] = unit
            else:
                others.append((kind, values))
    return list(units.values()), others
