"""Changes: what is missing, and the statements that add it."""

from collections.abc import Sequence
from dataclasses import dataclass

# How many names a text lists, unless it says otherwise.
LISTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    Something that is missing; a member of *role* can execute the statements.

    *id* is stable; changes with the same id are about the same privilege. *detail* says
    what is missing.
    """

    id: str
    role: str
    detail: str
    statements: tuple[str, ...]


def change(change_id: str, role: str, detail: str, *sql: str) -> Change:
    """Return a change."""
    return Change(id=change_id, role=role, detail=detail, statements=sql)


def count(number: int, noun: str) -> str:
    """Return the number with the noun, in the plural if necessary."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """Return the first *most* names, and how many others there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
