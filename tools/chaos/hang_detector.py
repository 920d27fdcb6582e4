"""Detection of operations that take too long, with the stack of their thread."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

# libpq accepts no connect_timeout below 2 s, so an attempt that starts at the end of
# the budget may exceed it by that much; the rest is for a machine under load.
MARGIN = 3.0
# The fault freeze-connections delays statements for as long as it is active.
LONGEST_STATEMENT = 30.0
INTERVAL = 0.25
CONNECTING, WORKING, COMMITTING = "connecting", "working", "committing"


class ThreadState:
    """What one thread is doing, and since when."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread: threading.Thread | None = None
        self.phase, self.since, self.key = "", 0.0, ""
        # The detector's *machine_delay* when the operation began.
        self.machine_delay = 0.0

    def enter(self, phase: str, key: str | None = None) -> None:
        """Begin *phase*, or "" between operations."""
        self.phase, self.since = phase, time.monotonic()
        if key is not None:
            self.key = key


class HangDetector(threading.Thread):
    """A thread that checks the states of all others and reports each hang once."""

    def __init__(
        self,
        states: Sequence[ThreadState],
        budget: float,
        report: Callable[..., None],
    ) -> None:
        super().__init__(name="hang-detector", daemon=True)
        self._states, self._budget, self._report = states, budget, report
        self._reported: set[str] = set()
        # The total seconds by which the busy machine woke this thread too late.
        self.machine_delay = 0.0

    def run(self) -> None:
        """Check until the process ends."""
        while True:
            started = time.monotonic()
            time.sleep(INTERVAL)
            overslept = time.monotonic() - started - 2 * INTERVAL
            self.machine_delay += max(0.0, overslept)
            for state in self._states:
                self.check(state)

    def check(self, state: ThreadState) -> None:
        """Report *state* if its phase takes longer than allowed."""
        phase, since, key = state.phase, state.since, state.key
        limit = self._budget + MARGIN if phase == CONNECTING else LONGEST_STATEMENT
        delay = self.machine_delay - state.machine_delay
        waited = time.monotonic() - since - delay
        # The thread may have entered another phase in between.
        has_changed = state.since != since
        if not phase or waited <= limit or key in self._reported or has_changed:
            return
        self._reported.add(key)
        frames = sys._current_frames()
        stacks = {
            f"{t.name} ({t.ident})": traceback.format_stack(frames[t.ident])[-6:]
            for t in threading.enumerate()
            if t.ident in frames and t is state.thread
        }
        self._report(
            writer=state.name, key=key, phase=phase, seconds=waited, stacks=stacks
        )
