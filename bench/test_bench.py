"""What the page makes of results: run with `python3 -m unittest discover -s bench`."""

import random
import unittest
from dataclasses import replace

import xml.etree.ElementTree as ElementTree

import scaling
from bars import bars, goals
from document import GROWTH, growth_chart, write_document
from fairness import felt
from figures import Results
from peers import SERVERS
from scenarios import SCENARIOS
from servers import port, public_port

MACHINE = {**dict.fromkeys(("cpu", "cores", "memory_gib", "kernel"), "x"), "versions": ["rustc 1", "axum 2"]}


def report(cost, p50=1.0, missing=0, refused=0):
    return {
        "load_average_before": 0.5, "measured": {"date": "2026-01-02", "commit": "abc"},
        "load": {
            "deliveries_per_second": 50000.0, "server_cpu_s_per_million": cost, "joins": 0, "pings": 0,
            "server_cpu": {"user_s": 1.0, "system_s": 1.0},
            "latency_ms": {"count": 9, "p50": p50, "p99": 2 * p50},
        },
        "connecting": {"failures": {"refused": refused} if refused else {}, "handshake_ms": {"max": 9.0},
                       "per_second": 1.0, "server_cpu_us_per_connect": 1.0},
        "memory": None,
        "verification": {"thrown_out": 0, "lost_publishers": False, "faults": {"missing": missing, "doubled": 0}},
        "closes": {}, "slow_closes": {},
    }


def bar(results, what, of=bars):
    return next((value, holds(value)) for name, value, holds, _, _ in of(Results(results)) if name == what)


class Page(unittest.TestCase):
    def results(self, ours, gorilla):
        return {"machine": MACHINE, "scenarios": {"a50": {"ours": ours, "gorilla": gorilla}}}

    def test_a_bar_compares_medians_of_the_same_scenario(self):
        results = self.results([report(4), report(5), report(90)], [report(10), report(10), report(1)])
        self.assertEqual(bar(results, "one big room, CPU per delivery"), (0.5, True))
        results = self.results([report(7)], [report(10)])
        self.assertEqual(bar(results, "one big room, CPU per delivery"), (0.7, False))

    def test_one_fault_in_one_run_is_not_lost_in_a_median(self):
        results = self.results([report(4), report(4, missing=1), report(4)], [report(10, missing=5)])
        value, holds = bar(results, "deliveries missing, doubled, reordered, misrouted or corrupt, all runs")
        self.assertEqual((value, holds), (1, False))

    def test_the_page_says_what_was_missed_and_what_was_not_measured(self):
        page = write_document(self.results([report(7)], [report(10)]))
        self.assertIn("| one big room, CPU per delivery | 0.70 | ≤ 0.60 × gorilla | **missed** |", page)
        self.assertIn("| CPU µs per ping | – | ≤ 12 | not measured |", page)
        self.assertIn("| CPU s per million deliveries | 7.00 (× 0.70) | 10.00 |", page)

    def test_a_bar_that_runs_side_by_side_are_on_both_sides_of_is_not_told(self):
        what = "one of a hundred messages traced over none, one big room: CPU"
        for traced, verdict in (((101, 102, 101), True), ((104, 105, 104), False), ((87, 101, 109), None), ((87, 105, 109), None)):
            runs = {"ours": [report(100)] * 3, "ours-traced": [report(cost) for cost in traced]}
            results = {"machine": MACHINE, "scenarios": {"trace-one": runs}}
            self.assertIs(bar(results, what)[1], verdict)
        self.assertIn(f"| {what} | 1.050 | ≤ 1.03 × | within noise |", write_document(results))

    def test_a_goal_is_measured_by_the_bare_loop(self):
        results = self.results([report(11)], [report(30)])
        results["scenarios"]["a50"]["floor"] = [report(10)]
        self.assertEqual(bar(results, "one big room, CPU per delivery", goals), (1.1, True))

    def test_what_a_server_did_that_threw_all_publishers_out_is_no_speed(self):
        gone = report(0.1)
        gone["verification"].update(lost_publishers=True, thrown_out=879)
        page = write_document(self.results([report(7)], [gone]))
        self.assertIn("| deliveries a second | 50,000 | – |", page)
        self.assertIn("| CPU s per million deliveries | 7.00 | – |", page)
        self.assertIn("| members lost | 0 | 879 |", page)

    def test_each_table_says_when_it_was_measured(self):
        older = report(7)
        older["measured"] = {"date": "2025-12-31", "commit": "def"}
        older["load_average_before"] = 2.0
        page = write_document(self.results([report(7), older], [report(10)]))
        self.assertIn("1 or 2 runs each on 2025-12-31 at def, 2026-01-02 at abc; load average before them 0.5 to 2.0.", page)
        self.assertIn("| versions | rustc 1; axum 2 |", page)

    def test_growth_is_drawn_when_all_of_it_was_measured(self):
        results = {"machine": MACHINE, "scenarios": {}}
        steps = {scenario for _, _, sweep, _ in GROWTH for _, scenario in sweep}
        for scenario in steps:
            results["scenarios"][scenario] = {"ours": [report(4)], "floor": [report(5 if scenario == "rooms-10000" else 2)]}
        picture = ElementTree.fromstring(growth_chart(results))
        told = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
        self.assertIn("hubbub-gateway, 10,000: 4", told)
        self.assertIn("bare write loop, 10,000: 5", told)
        page = write_document(results)
        self.assertIn("(growth.svg)", page)
        self.assertIn("| bare write loop | 2.00 | 2.00 | 2.00 | 2.00 | 5.00 | 2.50 |", page)
        del results["scenarios"]["rooms-10000"]
        self.assertIsNone(growth_chart(results))
        self.assertNotIn("(growth.svg)", write_document(results))

    def test_fairness_is_the_same_flood_elsewhere_against_here(self):
        here, elsewhere, gone = report(1, p50=3.0), report(1, p50=2.0), report(1, p50=1.0)
        here["flood"] = elsewhere["flood"] = {"lost_publishers": False, "deliveries_per_second": 9.0, "thrown_out": 0}
        gone["flood"] = {"lost_publishers": True, "deliveries_per_second": 9.0, "thrown_out": 879}
        runs = {"ours": [here], "ours-apart": [elsewhere], "gorilla": [gone], "gorilla-apart": [elsewhere]}
        results = {"machine": MACHINE, "scenarios": {"fair-200k": runs}}
        what = "p99 in quiet rooms beside a flood ÷ with the flood elsewhere, fair-200k"
        self.assertEqual(bar(results, what), (1.5, True))
        self.assertIsNone(felt(Results(results), "fair-200k", "gorilla"), "there was no flood")
        page = write_document(results)
        self.assertIn("| fair-200k | hubbub-gateway | 2.00 | 3.00 | 1.50 | 4.00 | 6.00 | 1.50 |", page)
        self.assertIn("| fair-200k | gorilla hub | 2.00 | – | – | 4.00 | – | – |", page)
        here["load"]["latency_ms"]["p99"] = 8.0
        self.assertEqual(bar(results, what), (2.0, False))

    def test_every_scenario_names_servers_that_exist(self):
        for scenario in SCENARIOS.values():
            self.assertLessEqual(set(scenario.servers), set(SERVERS))


class Addresses(unittest.TestCase):
    def test_a_peer_says_where_it_listens(self):
        self.assertEqual(port("listening on 127.0.0.1:4711"), 4711)
        self.assertIsNone(port("hello"))

    def test_the_gateways_public_address_is_not_its_admins(self):
        line = '{"fields":{"message":"serving","admin":"127.0.0.1:9","listen":"127.0.0.1:4711"}}'
        self.assertEqual(public_port(line), 4711)
        self.assertIsNone(public_port('{"admin":"127.0.0.1:9"}'))


class Scaling(unittest.TestCase):
    def test_the_paper_has_what_is_calculated(self):
        page = scaling.PAGE.read_text(encoding="utf-8")
        self.assertEqual(scaling.with_tables(page), page, "python3 bench/scaling.py --write puts the tables into it")

    def test_as_many_gateways_are_touched_as_when_members_are_thrown_at_them(self):
        chance = random.Random(1)
        for members, gateways in ((1, 7), (2, 2), (50, 50), (1000, 20)):
            thrown = [len({chance.randrange(gateways) for _ in range(members)}) for _ in range(2000)]
            self.assertAlmostEqual(scaling.touched(members, gateways), sum(thrown) / len(thrown), delta=0.02 * gateways)

    def test_reports_cost_what_reading_and_counting_each_of_them_costs(self):
        gateways, occupied, cost = 4, 3, 0
        for _ in range(gateways):
            cost += occupied * (scaling.PARSED + scaling.COUNTED)
        self.assertAlmostEqual(scaling.report_load(gateways, occupied), cost / scaling.PERIOD)

    def test_every_member_hears_each_message_and_every_gateway_is_within_its_size(self):
        for case in scaling.MIXES:
            of = scaling.plan(case)
            self.assertAlmostEqual(of["egress"], of["said"] * case.room * scaling.WIRE * 8)
            self.assertLessEqual(case.members / of["gateways"], case.per_gateway)
            self.assertLessEqual(of["cores"] * scaling.HEADROOM, of["gateways"] * scaling.CORES)
            self.assertLessEqual(of["occupied"], min(of["rooms"], case.members / of["gateways"]))
            self.assertEqual(of["gateways"], of["pool"] * case.pools)

    def test_one_gateway_for_a_room_is_less_work_than_many(self):
        groups = scaling.MIXES[2]
        many, one = scaling.plan(groups), scaling.plan(replace(groups, hashed=True))
        for name in ("subscriptions", "out", "routes", "report", "task", "interest", "memory"):
            self.assertLess(one[name], many[name], name)

    def test_what_is_beyond_its_limit_is_bold_from_there_on(self):
        groups = scaling.MIXES[2]
        edge = scaling.breaking(groups)["task"]
        self.assertGreater(scaling.plan(replace(groups, members=edge))["task"], 1)
        self.assertLess(scaling.plan(replace(groups, members=0.9 * edge))["task"], 1)
        cells = {line.split(" | ")[0]: line for line in scaling.columns([groups]).splitlines()}
        self.assertIn("| **", cells["| status writes a second in a rollout, else"])
        self.assertNotIn("**", cells["| etcd, with 5 minutes of history"])

    def test_numbers_are_short(self):
        told = {0: "0", 0.02: "0.02", 0.34: "0.3", 1: "1", 2.54: "2.5", 9.97: "10", 42.4: "42", 999: "1k", 1536: "1.5k", 12.4e6: "12M", 3e12: "3T"}
        self.assertEqual({value: scaling.short(value) for value in told}, told)


if __name__ == "__main__":
    unittest.main()
