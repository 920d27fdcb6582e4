"""Sees who waits too long, and shows where."""

import sys
import threading
import time
import traceback

# libpq takes no connect_timeout below 2 s, so an attempt that begins in the last
# moment of a budget may end so much later; the rest is for a machine under load.
MARGIN = 3.0
# Statements are held by a stall as long as that lasts.
LONGEST_STATEMENT = 30.0
EVERY = 0.25
CONNECTING, WORKING, COMMITTING = "connecting", "working", "committing"


class Slot:
    """What one thread is doing, since when."""

    def __init__(self, name):
        self.name, self.thread = name, None
        self.phase, self.since, self.key = "", 0.0, ""
        self.late = 0.0

    def enter(self, phase, key=None):
        """Begin *phase*; "" for nothing."""
        self.phase, self.since = phase, time.monotonic()
        if key is not None:
            self.key = key


class Watchdog(threading.Thread):
    """Looks at all slots of a process; reports each unit that hangs, once."""

    def __init__(self, slots, budget, report):
        super().__init__(name="watchdog", daemon=True)
        self._slots, self._budget, self._report = slots, budget, report
        self._told = set()
        # Seconds, in all, that this machine was late to wake even this thread.
        self.late = 0.0

    def run(self):
        """Look until the process ends."""
        while True:
            began = time.monotonic()
            time.sleep(EVERY)
            self.late += max(0.0, time.monotonic() - began - 2 * EVERY)
            for slot in self._slots:
                self.look(slot)

    def look(self, slot):
        """Report *slot* if it waits longer than it may."""
        phase, since, key = slot.phase, slot.since, slot.key
        limit = self._budget + MARGIN if phase == CONNECTING else LONGEST_STATEMENT
        waited = time.monotonic() - since - (self.late - slot.late)
        if not phase or waited <= limit or key in self._told or slot.since != since:
            return
        self._told.add(key)
        frames = sys._current_frames()
        shown = {
            f"{t.name} ({t.ident})": traceback.format_stack(frames[t.ident])[-6:]
            for t in threading.enumerate()
            if t.ident in frames and t is slot.thread
        }
        self._report(
            writer=slot.name, key=key, phase=phase, seconds=waited, stacks=shown
        )
