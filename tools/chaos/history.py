"""
The history of the writers: their operations and outcomes, as lines of JSON.

An operation is written when it begins and again when it ends. If its process is killed
in between, its outcome stays unknown.
"""

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    """What a writer knows about the outcome of its operation."""

    ACKNOWLEDGED = "acknowledged"
    # Never sent, or certainly rolled back.
    FAILED = "failed"
    # The response to a statement or a COMMIT was lost.
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Operation:
    """
    A transaction that inserts *parts* rows under one key, or a row in autocommit mode.

    *started* and *ended* are seconds of the monotonic clock.
    """

    key: str
    writer: int
    alias: str
    kind: str
    parts: int
    started: float
    ended: float = 0.0
    outcome: str = Outcome.UNKNOWN
    # Seconds until a connection was open, or connecting failed.
    connect_seconds: float = 0.0
    # Seconds during which the busy machine did not run even the hang detector.
    machine_delay: float = 0.0
    phase: str = ""
    error: dict[str, Any] | None = None


# A kind and its values, for lines that are not operations.
Incident = tuple[str, dict[str, Any]]


class HistoryWriter:
    """Appends lines to one file, which several processes may share."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, kind: str, /, **values: Any) -> None:
        """Append one line of *kind*."""
        text = json.dumps({"line": kind, **values}) + "\n"
        # A single write, so that lines of several threads and processes never mix.
        os.write(self._file, text.encode())


def read_histories(folder: Path) -> tuple[list[Operation], list[Incident]]:
    """Return the operations and the incidents of all histories in *folder*."""
    operations: dict[str, Operation] = {}
    incidents: list[Incident] = []
    for path in sorted(folder.glob("*.history")):
        for line in path.read_text().splitlines():
            values = json.loads(line)
            kind = values.pop("line")
            if kind == "operation":
                operation = Operation(**values)
                operations[operation.key] = operation
            else:
                incidents.append((kind, values))
    return list(operations.values()), incidents
