"""How a soak is judged: run with `python3 -m unittest discover -s bench`."""

import copy
import unittest

import soak_page
from document import write_document
from soak_gateways import COUNTS
from soak_judge import GRAIN, GROWTH_PER_10_MIN, MIB, growth, judge, slope
from soak_phases import summed
from servers import BenchError
from test_bench import MACHINE

BEFORE = {"files": 45, "threads": 7, "tasks": 30, "connections": 0, "subscriptions": 0, "sockets": 0}
COUNTED = {"throttled": 0, "disconnects": 0, "lost": 0, "panics": 0}
FAULTS = {"missing": 0, "doubled": 0, "reordered": 0, "misrouted": 0, "corrupt": 0}


def record(phase, counted=None, ended=None, **seen):
    return {
        "phase": phase, "cycle": 1, "connected": 500, "deliveries": 9000, "unsent": 0, "joins": 0, "leaves": 0, "reconnects": 0,
        "faults": dict(FAULTS), "thrown_out": 0, "unheard": 0, "violations": {}, "failures": {}, "counted": COUNTED | (counted or {}),
        "ended": ended or {}, **seen,
    }


def gateway(name, sizes, seconds=75):
    quiet = [{"cycle": cycle, "at": cycle * seconds, "rss": size, **BEFORE} for cycle, size in enumerate(sizes, 1)]
    return {"name": name, "before": dict(BEFORE), "quiet": quiet}


def good():
    return {
        "measured": {"date": "2026-01-02", "commit": "abc", "machine": MACHINE}, "profile": "release", "minutes": 5.0, "cycles": 4, "arenas": 1,
        "gateways": [gateway("staying", [20 * MIB, 24 * MIB, 24 * MIB, 24 * MIB]), gateway("passing", []), gateway("passing", [20 * MIB])],
        "phases": [
            record("churn", joins=600, leaves=600),
            record("slow", ended={"queue_full": 19, "write_timeout": 1}, never_read=20),
            record("drain", unsent=3, reconnects=250, sent_away=250, told_1012=250, came_back=250, exit_code=0),
            record("flood", counted={"throttled": 90}, ended={"control_flood": 10}, pingers=10),
            record("outage", counted={"disconnects": 4, "lost": 2}, faults=FAULTS | {"missing": 18},
                   back=True, running=True, heard_at_last=500.0, seconds_back=12.0),
        ],
        "growth_bytes_per_10_min": 0, "complaints": [],
    }


class Memory(unittest.TestCase):
    def test_a_slope_is_that_of_least_squares(self):
        self.assertEqual(slope([(0, 5), (10, 25), (20, 45)]), 2)
        self.assertEqual(slope([(0, 0), (1, 3), (2, 0)]), 0)
        self.assertEqual(slope([(5, 7)]), 0)

    def test_the_first_cycle_is_no_growth(self):
        self.assertEqual(growth(gateway("staying", [0, 9 * MIB, 9 * MIB, 9 * MIB])["quiet"]), (0, 0))
        per_10_min, in_all = growth(gateway("staying", [0, MIB, 2 * MIB, 3 * MIB], seconds=60)["quiet"])
        self.assertAlmostEqual(per_10_min, 10 * MIB)
        self.assertAlmostEqual(in_all, 2 * MIB)

    def test_growth_counts_when_it_is_both_steep_and_more_than_a_grain(self):
        def complains(of, seconds):
            seen = good()
            seen["gateways"][0] = gateway("staying", of, seconds)
            return any("memory grows by" in complaint for complaint in judge(seen))

        steep, grain = GROWTH_PER_10_MIN / 600, GRAIN
        self.assertFalse(complains([0, 0, grain // 3, 2 * grain // 3], 75), "a short soak sees the allocator's grain")
        self.assertTrue(complains([0, 0, grain, 2 * grain], 75))
        hour = [int(1.1 * steep * 120 * cycle) for cycle in range(30)]
        self.assertTrue(complains(hour, 120))
        self.assertFalse(complains([int(0.9 * size / 1.1) for size in hour], 120))
        saw = [size // 2 + (cycle % 2) * MIB // 2 for cycle, size in enumerate(hour)]
        self.assertFalse(complains(saw, 120), "up and down is no slope")

    def test_too_few_quiet_moments_are_not_taken_for_flat(self):
        seen = good()
        seen["gateways"][0]["quiet"] = seen["gateways"][0]["quiet"][:2]
        self.assertEqual(judge(seen), ["the staying gateway: 2 quiet moments tell nothing of its memory; soak longer"])


class Judged(unittest.TestCase):
    def test_a_good_soak_has_no_complaints(self):
        self.assertEqual(judge(good()), [])

    def test_each_count_that_is_not_back_is_told(self):
        for count, what in COUNTS.items():
            for of, gateway in ((0, "staying"), (2, "passing")):
                for more in (1, -1):
                    seen = good()
                    seen["gateways"][of]["quiet"][0][count] += more
                    number = BEFORE[count]
                    self.assertEqual(judge(seen), [
                        f"the {gateway} gateway, cycle 1: {number + more} {what} when everybody had left, {number} before they came",
                    ])

    def complaints(self, phase, **changes):
        """What is said when the record of that phase differs so; a dictionary adds to what stands there."""
        seen = good()
        of = next(record for record in seen["phases"] if record["phase"] == phase)
        for name, value in changes.items():
            of[name] = of[name] | value if isinstance(value, dict) else value
        return judge(seen)

    def test_deliveries_are_owed_except_in_an_outage(self):
        for phase in ("churn", "slow", "drain", "flood"):
            for fault in FAULTS:
                self.assertEqual(self.complaints(phase, faults={fault: 2}), [f"{phase}, cycle 1: 2 deliveries {fault}"])
        self.assertEqual(self.complaints("outage", faults={"missing": 1000}), [])
        for phase in ("churn", "slow", "flood"):
            self.assertEqual(self.complaints(phase, unsent=4), [f"{phase}, cycle 1: 4 messages could not be sent"])

    def test_members_are_never_thrown_out_unless_the_phase_is_for_it(self):
        for record in good()["phases"]:
            phase = record["phase"]
            self.assertEqual(self.complaints(phase, thrown_out=1), [f"{phase}, cycle 1: 1 members were thrown out"])
            self.assertEqual(self.complaints(phase, ended={"pong_timeout": 3}), [f"{phase}, cycle 1: gateways ended 3 connections: pong_timeout"])
            self.assertEqual(self.complaints(phase, failures={"no answer in time": 1}), [f"{phase}, cycle 1: 1 × no answer in time"])
            self.assertEqual(self.complaints(phase, violations={"masked": 1}), [f"{phase}, cycle 1: 1 × violation of the protocol: masked"])
            self.assertEqual(self.complaints(phase, unheard=1), [f"{phase}, cycle 1: 1 members never heard a publisher's probe"])
            self.assertEqual(self.complaints(phase, counted={"panics": 1}), [f"{phase}, cycle 1: 1 faults in a gateway"])
            self.assertEqual(self.complaints(phase, deliveries=0), [f"{phase}, cycle 1: nothing was delivered"])
        self.assertIn("churn, cycle 1: gateways ended 1 connections: queue_full", self.complaints("churn", ended={"queue_full": 1}))

    def test_a_phase_that_did_not_do_what_it_is_for_proves_nothing(self):
        for phase, changes, sentence in (
            ("churn", {"joins": 0}, "nobody came or went"),
            ("slow", {"ended": {"queue_full": 18}}, "19 members were cut for being slow, and 20 never read"),
            ("slow", {"ended": {"queue_full": 20}}, "21 members were cut for being slow, and 20 never read"),
            ("drain", {"told_1012": 249}, "249 of 250 members were sent away with 1012"),
            ("drain", {"came_back": 248}, "248 of 250 members came back"),
            ("drain", {"exit_code": 1}, "the drained gateway ended with exit code 1"),
            ("drain", {"exit_code": None}, "the drained gateway did not end"),
            ("drain", {"sent_away": 0, "told_1012": 0, "came_back": 0}, "the gateway that was drained had no members"),
            ("flood", {"counted": {"throttled": 0}}, "nobody was held back for sending too much"),
            ("flood", {"ended": {"control_flood": 9}}, "9 members were closed for flooding with pings, and 10 did"),
            ("outage", {"counted": {"disconnects": 0}}, "no gateway noticed that NATS was away"),
            ("outage", {"back": False}, "gateways did not connect to NATS again"),
            ("outage", {"heard_at_last": 0}, "nothing was heard although NATS had been back for 12.0 s"),
        ):
            self.assertEqual(self.complaints(phase, **changes), [f"{phase}, cycle 1: {sentence}"])
        self.assertEqual(self.complaints("outage", heard_at_last=0, seconds_back=3.0), [], "it may not have had the time")


class Counters(unittest.TestCase):
    def test_a_counter_is_summed_over_its_labels(self):
        metrics = {'a_total{reason="x"}': 1.0, 'a_total{reason="y"}': 2.0, "a_total_more": 9.0, "b_total": 4.0}
        self.assertEqual([summed(metrics, name) for name in ("a_total", "b_total", 'a_total{reason="y"}')], [3, 4, 2])

    def test_a_counter_that_is_not_there_is_no_zero(self):
        with self.assertRaisesRegex(BenchError, "no metric c_total"):
            summed({"b_total": 4.0}, "c_total")


class Page(unittest.TestCase):
    def test_the_page_has_the_soak_that_was_kept(self):
        kept = soak_page.condensed(good())
        page = write_document({"machine": MACHINE, "scenarios": {}}, kept)
        self.assertIn("**All of it held.**", page)
        self.assertIn("| slow | 500 | 9,000 | none | 0 | 20 never read, 20 were cut for being slow |", page)
        self.assertIn("| outage | 500 | 9,000 | 18, 0, 0, 0, 0 | 0 | 4 connections to NATS broke", page)
        self.assertIn("| open files after the first visitor → in quiet moments | 45 → 45 | 45 → 45 |", page)
        self.assertIn("| processes, quiet moments | 1, 4 | 2, 1 |", page)
        self.assertNotIn("## Soak", write_document({"machine": MACHINE, "scenarios": {}}))

    def test_the_page_says_what_did_not_hold(self):
        kept = soak_page.condensed(copy.deepcopy(good()) | {"complaints": ["one", "two"]})
        page = write_document({"machine": MACHINE, "scenarios": {}}, kept)
        self.assertIn("**Not all of it held:**\n- one\n- two\n", page)


if __name__ == "__main__":
    unittest.main()
