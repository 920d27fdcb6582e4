"""
The kinds of failures: who reported one, what connecting does then.

Apart from the table itself, which is loaded with the first failure.
"""

from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """Who reported a failure."""

    SETTINGS = "settings"
    WORKSPACE = "workspace"
    SERVER = "server"


class Then(StrEnum):
    """What connecting does after a failure."""

    RENEW = "renew"
    WAIT = "wait"
    WAIT_BRIEFLY = "wait briefly"
    STOP = "stop"
    PROBE = "probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    One way to fail: how it is recognised, what it means, how it is mended.

    *native* limits a row to logins with a password (True) or by token (False).

    *passing* marks what may be over in a while without anybody's doing, beyond what
    the ladder waits for itself: ``lakebase_check --wait`` tries again.
    """

    id: str
    source: Source
    means: str
    mend: str
    pattern: str = ""
    then: Then = Then.STOP
    passing: bool = False
    native: bool | None = None

    @property
    def may_pass(self) -> bool:
        """Whether the same attempt may succeed later without a change."""
        return self.passing or self.then in (Then.WAIT, Then.WAIT_BRIEFLY)
