"""The results of ``lakebase_check``: its steps, and what they have found."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """
    One thing that is wrong, or is only reported if *status* is OK.

    *statements* correct it, if *role*, or a member of it, executes them in this order;
    without statements, *hint* says what to do.
    """

    id: str
    status: Status
    detail: str
    hint: str = ""
    role: str = ""
    statements: tuple[str, ...] = ()

    def how_to_correct(self) -> str:
        """Return the hint with the statements."""
        sql = " ".join(self.statements)
        run = f'As "{self.role}", or as a member of it, run: {sql}'
        return " ".join(filter(None, (self.hint, run if self.statements else "")))


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a deployment step: a *summary*, and what is wrong."""

    summary: str
    findings: tuple[Finding, ...] = ()

    @property
    def status(self) -> Status:
        """The worst status of the findings."""
        found = {finding.status for finding in self.findings}
        worst_first = (Status.FAIL, Status.WARN)
        return next((status for status in worst_first if status in found), Status.OK)

    @property
    def detail(self) -> str:
        """The details of the findings, or the summary if there are none."""
        return "; ".join(f.detail for f in self.findings) or self.summary

    @property
    def hint(self) -> str:
        """The hints of all findings."""
        return " ".join(filter(None, (f.how_to_correct() for f in self.findings)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """
    The result of one step, which took *seconds*.

    *is_transient* means that the step may succeed later without a change.
    """

    id: str
    status: Status
    detail: str
    hint: str = ""
    seconds: float = 0.0
    is_transient: bool = False
    findings: tuple[Finding, ...] = ()
