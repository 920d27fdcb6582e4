"""Writes down what became of each test, in the parent of all test processes."""

import json
import os
import unittest
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner


class Record(unittest.TextTestResult):
    """A result that also goes to a file, line by line."""

    def startTestRun(self) -> None:  # noqa: N802 - unittest's names, here and below.
        super().startTestRun()
        file = Path(os.environ["DJANGO_SUITE_RECORD"])
        self._lines = file.open("w", buffering=1)

    def stopTestRun(self) -> None:  # noqa: N802
        self._lines.write(json.dumps({"finished": True}) + "\n")
        self._lines.close()
        super().stopTestRun()

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        super().addSuccess(test)
        self._note(test, "ok")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note(test, "error", said(err))

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note(test, "failure", said(err))

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._note(test, "skipped", str(reason))

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addExpectedFailure(test, err)
        self._note(test, "expected failure")

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self._note(test, "unexpected success")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            is_failure = issubclass(err[0], test.failureException)
            self._note(test, "failure" if is_failure else "error", said(err))

    def _note(self, test: Any, status: str, detail: str = "") -> None:
        # Other processes report the skip of a part as one of its test.
        whole = getattr(test, "test_case", test)
        line = {"test": whole.id(), "status": status, "detail": detail}
        self._lines.write(json.dumps(line) + "\n")


def said(err: Any) -> str:
    """Return the last line of what a test raised, which is short enough for a table."""
    lines = str(err[1]).strip().splitlines() or [""]
    return f"{err[0].__name__}: {lines[0]}"[:300]


class Recorder(DiscoverRunner):
    """Django's test runner, with a record."""

    def get_resultclass(self) -> type[unittest.TextTestResult]:
        """Return the class that writes the record."""
        return Record
