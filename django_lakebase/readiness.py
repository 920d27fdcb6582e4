"""
Readiness: whether this process can connect to its database, for health endpoints.

How it works. A check runs a few steps of ``lakebase_check`` in a daemon thread, with a
Django connection object that no other thread has. Callers wait for it within their own
time limit. Callers at the same time share one check, and its result is reused for
`MAX_AGE` seconds, so a health endpoint that anybody can call opens at most one
connection per second. A check that does not end is abandoned; see `SingleFlight`. The
caller that notices closes its connection, so that its thread ends.
"""

import contextlib
import time
from dataclasses import dataclass
from typing import Any, cast

from django.db import connections

from . import process
from .auth.singleflight import CallError, SingleFlight
from .base import LakebaseMixin
from .diagnosis.step import Status, Step
from .diagnosis.steps import Diagnosis

# They make no request to the workspace if a credential is cached.
STEPS = ("settings", "credential", "login", "role")
# Seconds for which a result is reused.
MAX_AGE = 1.0
# The largest time limit, in seconds.
MAX_TIMEOUT = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The result of `check_readiness`: the steps in their order."""

    alias: str
    steps: tuple[Step, ...]

    @property
    def is_ready(self) -> bool:
        """Whether no step failed."""
        return all(step.status is not Status.FAIL for step in self.steps)

    def as_dict(self, *, details: bool = False) -> dict[str, Any]:
        """
        Return what a JSON response can contain: the ids and statuses of the steps.

        With *details*, also their details and hints, which contain no secrets, but
        names of hosts, users and databases.
        """
        fields = ("id", "status", *(("detail", "hint") if details else ()))
        return {
            "alias": self.alias,
            "is_ready": self.is_ready,
            "steps": [
                {name: str(getattr(step, name)) for name in fields}
                for step in self.steps
            ],
        }


class _Check:
    """The checks of one alias, each of which may take *timeout* seconds."""

    def __init__(self, alias: str, timeout: float) -> None:
        self._alias, self._timeout = alias, timeout
        self._flight = SingleFlight(
            self._run, on_result=self._store, call_timeout=timeout
        )
        # The steps that have ended, and the latest result with its time.
        self._steps: list[Step] = []
        # The check that was started last, with its time.
        self._diagnosis: tuple[float, Diagnosis] | None = None
        self._latest: tuple[float, tuple[Step, ...]] | None = None

    def run(self) -> tuple[Step, ...]:
        """Return the result; if the time ends first, the next step has failed."""
        latest = self._latest
        if latest is not None and time.monotonic() - latest[0] < MAX_AGE:
            return latest[1]
        try:
            return self._flight.wait(self._timeout)
        except CallError as exc:
            self._cancel()
            return self._incomplete(str(exc))

    def is_running(self) -> bool:
        """Return whether a check is running."""
        return self._flight.is_running()

    def _cancel(self) -> None:
        """End the check that has taken too long, but not one that has just started."""
        if self._diagnosis is not None:
            started_at, diagnosis = self._diagnosis
            if time.monotonic() - started_at > self._timeout / 2:
                diagnosis.cancel()

    def _run(self) -> tuple[Step, ...]:
        # An abandoned check keeps its list.
        steps = self._steps = []
        wrapper = cast("LakebaseMixin", connections.create_connection(self._alias))
        diagnosis = Diagnosis(wrapper, only=STEPS, timeout=self._timeout)
        self._diagnosis = time.monotonic(), diagnosis
        with contextlib.closing(diagnosis.run()) as results:
            for step in results:
                if diagnosis.is_cancelled:
                    raise TimeoutError(f"no answer within {self._timeout:g} s")
                steps.append(step)
        return tuple(steps)

    def _store(self, steps: tuple[Step, ...]) -> None:
        self._latest = time.monotonic(), steps

    def _incomplete(self, reason: str) -> tuple[Step, ...]:
        done = tuple(self._steps)
        if len(done) == len(STEPS):
            # The check has just ended.
            return done
        failed, *skipped = STEPS[len(done) :]
        return (
            *done,
            Step(id=failed, status=Status.FAIL, detail=reason),
            *(
                Step(id=name, status=Status.SKIPPED, detail="an earlier step failed")
                for name in skipped
            ),
        )


_checks: dict[tuple[str, float], _Check] = {}
process.run_in_child(_checks.clear)


def check_readiness(using: str = "default", *, timeout: float = 2.0) -> Readiness:
    """
    Return whether this process can open a connection to the alias *using*.

    Opens a connection outside of the pool and closes it again. Leaves the connections
    of this thread alone. Returns after *timeout* seconds at the latest; a step that has
    not ended then counts as failed. Calls with the same *timeout* share their checks.
    Raises no error of the workspace or the database, but TypeError if the alias has
    another engine, and ValueError if *timeout* is not a number above 0.
    """
    if not 0 < timeout <= MAX_TIMEOUT:
        raise ValueError(f"timeout is {timeout}, not between 0 and {MAX_TIMEOUT:g} s")
    process.detect_fork()
    if not isinstance(connections[using], LakebaseMixin):
        raise TypeError(f'the alias "{using}" does not use the engine django_lakebase')
    check = _checks.get((using, timeout))
    if check is None:
        # Callers may compute the timeout, so that each is different.
        for key, other in list(_checks.items()):
            if key[0] == using and not other.is_running():
                _checks.pop(key, None)
        check = _checks.setdefault((using, timeout), _Check(using, timeout))
    return Readiness(alias=using, steps=check.run())
