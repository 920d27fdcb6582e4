"""The option ``--wait`` of the commands: its value, and the pauses between attempts."""

import time
from argparse import ArgumentTypeError

# Seconds: the first pause, doubled after each attempt up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0


def seconds(text: str) -> float:
    """Return the number of seconds in *text*; raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f'"{text}" is not a number of seconds (0 or more).')
    return value


class Pauses:
    """Pauses between attempts until *deadline*, a time of time.monotonic()."""

    def __init__(self, deadline: float) -> None:
        self._deadline, self._pause = deadline, FIRST_PAUSE

    def left(self) -> float:
        """Return the seconds until the deadline; 0 if it comes before the next one."""
        left = self._deadline - time.monotonic()
        return left if left > self._pause else 0.0

    def sleep(self) -> None:
        """Pause until the next attempt."""
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
