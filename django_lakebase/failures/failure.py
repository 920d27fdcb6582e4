"""
The types of the failure table: who reports a failure, and what connecting does next.

They are separate from the table, which is loaded only when a failure occurs.
"""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Who reported a failure."""

    SETTINGS = "settings"
    WORKSPACE = "workspace"
    SERVER = "server"


class Action(StrEnum):
    """
    What connecting does after a failure.

    ``refresh`` drops the token and tries once with a new one, ``retry`` tries until
    the connect budget ends, ``retry_briefly`` for ten seconds, ``probe`` once with a
    newly issued token, ``fail`` not at all.
    """

    REFRESH = "refresh"
    RETRY = "retry"
    RETRY_BRIEFLY = "retry_briefly"
    FAIL = "fail"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    One row of the failure table.

    *pattern* recognises the failure by its text, *summary* and *hint* are templates
    for its message, and *action* is what connecting does next. *native* limits a row
    to logins with a password (True) or with a token (False).

    *transient* marks a failure that may clear without any change, even after
    connecting has stopped retrying: ``lakebase_check --wait`` tries again.
    """

    id: str
    source: Source
    summary: str
    hint: str
    pattern: str = ""
    action: Action = Action.FAIL
    transient: bool = False
    native: bool | None = None

    @property
    def is_transient(self) -> bool:
        """Whether the same attempt may succeed later without a change."""
        return self.transient or self.action in (Action.RETRY, Action.RETRY_BRIEFLY)
