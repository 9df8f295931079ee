"""What the page makes of results: run with `python3 -m unittest discover -s bench`."""

import unittest

import xml.etree.ElementTree as ElementTree

from bars import bars, goals
from document import GROWTH, growth_chart, write_document
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


if __name__ == "__main__":
    unittest.main()
