"""The recorder, under unittest's own runner."""

import io
import unittest

from tools.django_suite.comparison import Outcome, read
from tools.django_suite.recorder import Record


class Examples(unittest.TestCase):
    """Tests of every kind, of which pytest runs none."""

    __test__ = False

    def test_good(self):
        pass

    def test_error(self):
        raise ValueError("first line\nsecond line")

    def test_failure(self):
        self.fail("no")

    @unittest.skip("why")
    def test_skipped(self):
        pass

    @unittest.expectedFailure
    def test_expected(self):
        self.fail("known")

    @unittest.expectedFailure
    def test_unexpected(self):
        pass

    def test_failed_part(self):
        with self.subTest(part=1):
            self.fail("in part")

    def test_skipped_part(self):
        with self.subTest(part=1):
            self.skipTest("in part")


def test_each_outcome_of_a_test_is_written_down(tmp_path, monkeypatch):
    """Failed and skipped parts count for their test, as other processes report them."""
    record = tmp_path / "record.jsonl"
    monkeypatch.setenv("DJANGO_SUITE_RECORD", str(record))
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Examples)
    unittest.TextTestRunner(stream=io.StringIO(), resultclass=Record).run(suite)

    found = read(record.read_text().splitlines())
    assert {test.rpartition(".test_")[2]: found[test] for test in found} == {
        "good": Outcome("ok"),
        "error": Outcome("error", "ValueError: first line"),
        "failure": Outcome("failure", "AssertionError: no"),
        "skipped": Outcome("skipped", "why"),
        "expected": Outcome("expected failure"),
        "unexpected": Outcome("unexpected success"),
        "failed_part": Outcome("failure", "AssertionError: in part"),
        "skipped_part": Outcome("skipped", "in part"),
    }
