"""The recorder of Django's test suite, under unittest's own runner."""

import io
import unittest
from pathlib import Path

import pytest

from tools.django_suite.comparison import Outcome, read_results
from tools.django_suite.recorder import RecordingResult


class Examples(unittest.TestCase):
    """One test for each outcome; pytest does not collect them."""

    __test__ = False

    def test_good(self) -> None:
        pass

    def test_error(self) -> None:
        raise ValueError("first line\nsecond line")

    def test_failure(self) -> None:
        self.fail("no")

    @unittest.skip("why")
    def test_skipped(self) -> None:
        pass

    @unittest.expectedFailure
    def test_expected(self) -> None:
        self.fail("known")

    @unittest.expectedFailure
    def test_unexpected(self) -> None:
        pass

    def test_failed_subtest(self) -> None:
        with self.subTest(part=1):
            self.fail("in part")

    def test_skipped_subtest(self) -> None:
        with self.subTest(part=1):
            self.skipTest("in part")


def test_recorder_writes_each_outcome_and_attributes_subtests_to_their_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    record = tmp_path / "record.jsonl"
    monkeypatch.setenv("DJANGO_SUITE_RECORD", str(record))
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Examples)
    runner = unittest.TextTestRunner(
        stream=io.StringIO(),
        resultclass=RecordingResult,  # type: ignore[arg-type]  # typeshed's stream type
    )
    runner.run(suite)

    found = read_results(record.read_text().splitlines())
    assert {test.rpartition(".test_")[2]: found[test] for test in found} == {
        "good": Outcome("ok"),
        "error": Outcome("error", "ValueError: first line"),
        "failure": Outcome("failure", "AssertionError: no"),
        "skipped": Outcome("skipped", "why"),
        "expected": Outcome("expected failure"),
        "unexpected": Outcome("unexpected success"),
        "failed_subtest": Outcome("failure", "AssertionError: in part"),
        "skipped_subtest": Outcome("skipped", "in part"),
    }
