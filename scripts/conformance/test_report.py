"""How reports of the Autobahn testsuite are judged, on a small one recorded from a server that drops without a word."""

import dataclasses
import pathlib
import tempfile
import unittest

import report
import servers

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "report"
PASSED = report.Case("1.1.1", "OK", "OK", 1000, (1000,), True, "")


class Reading(unittest.TestCase):
    def test_cases_come_in_their_order_with_what_was_due(self):
        cases = report.read(RECORDED)
        self.assertEqual([case.number for case in cases], ["1.1.1", "3.2", "4.1.3", "7.7.1", "7.13.1", "10.1.1"])
        self.assertEqual(cases[1].codes_due, (1002,))
        self.assertIsNone(cases[1].close_code)
        self.assertFalse(cases[1].clean)
        self.assertNotIn("<", cases[1].description)

    def test_no_report_is_no_cases(self):
        with tempfile.TemporaryDirectory() as empty:
            self.assertEqual(report.read(pathlib.Path(empty)), [])


class Judging(unittest.TestCase):
    def test_a_drop_where_a_close_code_is_due_has_failed(self):
        verdict = report.judge(report.read(RECORDED), expected=6, max_non_strict=10)
        self.assertEqual((verdict.passed, verdict.failed), (4, 2))
        self.assertRegex(verdict.faults[0], r"^3\.2 dropped without a close code \(code None, due 1002\): Send small text")

    def test_the_suites_own_judgement_lets_it_pass(self):
        verdict = report.judge(report.read(RECORDED), expected=6, max_non_strict=10, codes_due=False)
        self.assertEqual((verdict.passed, verdict.failed), (6, 0))
        self.assertEqual(verdict.non_strict, ["3.2", "4.1.3"])

    def test_each_kind_of_failure_counts(self):
        faults = {
            "behavior": ("FAILED", "UNCLEAN", "WRONG CODE", "UNIMPLEMENTED"),
            "behavior_close": ("FAILED BY CLIENT", "UNCLEAN", "WRONG CODE"),
        }
        for field, values in faults.items():
            for value in values:
                with self.subTest(field=field, value=value):
                    case = dataclasses.replace(PASSED, **{field: value})
                    verdict = report.judge([case], expected=1, max_non_strict=0)
                    self.assertEqual((verdict.passed, verdict.failed), (0, 1))

    def test_a_case_that_did_not_run_counts(self):
        verdict = report.judge([PASSED], expected=247, max_non_strict=10)
        self.assertEqual((verdict.passed, verdict.failed), (1, 1))
        self.assertEqual(verdict.faults, ["1 cases ran, 247 were to run"])

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(report.judge([], expected=247, max_non_strict=10).failed, 1)

    def test_non_strict_cases_pass_up_to_the_bound(self):
        case = dataclasses.replace(PASSED, behavior="NON-STRICT")
        self.assertEqual(report.judge([case] * 10, expected=10, max_non_strict=10).failed, 0)
        self.assertEqual(report.judge([case] * 11, expected=11, max_non_strict=10).failed, 1)


class Addresses(unittest.TestCase):
    def test_they_stand_in_the_line_that_says_the_gateway_serves(self):
        line = '{"level":"INFO","message":"serving","listen":"127.0.0.1:41","admin":"127.0.0.1:42","bus":"nats"}\n'
        self.assertEqual(servers.addresses(line), ("127.0.0.1:41", "127.0.0.1:42"))

    def test_before_that_there_are_none(self):
        self.assertIsNone(servers.addresses('{"level":"INFO","message":"rooms declared","rooms":2}\n'))


if __name__ == "__main__":
    unittest.main()
