"""
The types of the failure table: `Failure` (a row), `Source` and `Action`.

They are separate from the table, which is loaded only when a failure occurs.
"""

from enum import StrEnum
from typing import NamedTuple


class Source(StrEnum):
    """Who reported a failure."""

    SETTINGS = "settings"
    WORKSPACE = "workspace"
    SERVER = "server"


class Action(StrEnum):
    """
    What the connector does after a failure.

    - ``refresh`` drops the token and tries once with a new one.
    - ``retry`` tries again until the connect budget ends.
    - ``retry_briefly`` tries again for ten seconds.
    - ``probe`` tries once with a newly issued token, and keeps the cached one unless
      that succeeds.
    - ``fail`` raises the error.
    """

    REFRESH = "refresh"
    RETRY = "retry"
    RETRY_BRIEFLY = "retry_briefly"
    FAIL = "fail"
    PROBE = "probe"


class Failure(NamedTuple):
    """
    One row of the failure table.

    *pattern* is a regular expression that recognises the failure by its text; without
    one, the engine detects the failure itself. *summary* and *hint* are templates for
    the message, with the facts as placeholders. *action* is what the connector does
    next. *native* limits a row to logins with a password (True) or with a token
    (False).

    *may_clear* marks a failure that is not retried while connecting, but may clear
    without a change: ``lakebase_check --wait`` tries again.
    """

    id: str
    source: Source
    summary: str
    hint: str
    pattern: str = ""
    action: Action = Action.FAIL
    may_clear: bool = False
    native: bool | None = None

    @property
    def is_retried(self) -> bool:
        """Whether the connector repeats the attempt after a pause."""
        return self.action in (Action.RETRY, Action.RETRY_BRIEFLY)

    @property
    def is_transient(self) -> bool:
        """Whether the failure may clear without a change."""
        return self.may_clear or self.is_retried
