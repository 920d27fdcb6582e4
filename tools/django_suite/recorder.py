"""A test runner that records the outcome of each test in a file."""

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner


class RecordingResult(unittest.TextTestResult):
    """
    A test result that also writes one line of JSON for each outcome.

    With several test processes it is used in their parent, which gets all outcomes.
    """

    def startTestRun(self) -> None:  # noqa: N802 - the method names are unittest's.
        super().startTestRun()
        file = Path(os.environ["DJANGO_SUITE_RECORD"])
        self._file = file.open("w", buffering=1)

    def stopTestRun(self) -> None:  # noqa: N802
        self._file.write(json.dumps({"finished": True}) + "\n")
        self._file.close()
        super().stopTestRun()

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        super().addSuccess(test)
        self._record(test, "ok")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._record(test, "error", summarize(err))

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._record(test, "failure", summarize(err))

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._record(test, "skipped", str(reason))

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._record(test, "expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._record(test, "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            self._record(test, "failure" if is_failure else "error", summarize(err))

    def _record(self, test: Any, status: str, detail: str = "") -> None:
        # A skipped subtest is attributed to its test, as test processes report it.
        whole = getattr(test, "test_case", test)
        line = {"test": whole.id(), "status": status, "detail": detail}
        self._file.write(json.dumps(line) + "\n")


def summarize(err: Any) -> str:
    """Return the exception's name and the first line of its text, shortened."""
    lines = str(err[1]).strip().splitlines() or [""]
    return f"{err[0].__name__}: {lines[0]}"[:300]


class RecordingRunner(DiscoverRunner):
    """Django's test runner with a `RecordingResult`."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        """Return the class that writes the record."""
        return RecordingResult
