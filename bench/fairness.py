"""Whether a flood in one room is felt in the others: the load beside the load, and what the page says of it."""

import json

from figures import latency
from peers import SERVERS
from scenarios import SCENARIOS
from servers import ORIGIN, BenchError, Process

# Seconds that the flood lasts beyond the measured window: for the members that are measured to come in, warm up and hear the last.
MARGIN_S = 8
FLOODED = [scenario for scenario in SCENARIOS.values() if scenario.flood]
# How many times later the slowest messages of quiet rooms may come than beside the same flood elsewhere.
OWED = 2


def flood_arguments(scenario):
    return scenario.flood.arguments(f"{float(scenario.duration.rstrip('s')) + MARGIN_S:.0f}s")


class Flooding:
    """A second hubbub-load, in the room that is flooded. It is at its full rate once this is made."""

    def __init__(self, scenario, server, binaries):
        self.load = Process([
            binaries / "hubbub-load", *server.flood_urls, *flood_arguments(scenario), "--origin", ORIGIN, "--json", "-",
        ])
        self.load.await_line(lambda line: line.startswith("measure"), limit=120)
        self.outlasted = False

    def see(self):
        """To be called when the measured window is over: whether the flood was there until then."""
        self.outlasted = self.load.child.poll() is None

    def end(self, limit):
        """What was delivered in the flooded room, and what became of its members."""
        status = self.load.child.wait(limit)
        self.load.reader.join()
        if status not in (0, 1):
            raise BenchError("\n".join(self.load.lines[-5:]))
        report = json.loads("\n".join(self.load.lines[self.load.lines.index("{"):]))
        told = report["verification"]
        if not (self.outlasted or told["lost_publishers"]):
            raise BenchError("the flood was over before what it was to disturb: raise MARGIN_S of bench/fairness.py")
        return {
            "deliveries_per_second": report["load"]["deliveries_per_second"], "lost_publishers": told["lost_publishers"],
            "thrown_out": told["thrown_out"],
        }

    def stop(self):
        self.load.stop(limit=1)


def flood(field):
    return lambda report: report.get("flood", {}).get(field)


def undisturbed(report):
    """Whether the server has thrown the publishers of the flood out, so that there was none to be felt."""
    return report.get("flood", {}).get("lost_publishers", False)


def beside_flood(quantile):
    """The latency in the quiet rooms; none where the flood was thrown out."""
    def times(report):
        return None if undisturbed(report) else latency(quantile)(report)

    return times


def felt(results, scenario, server, quantile="p99"):
    """How many times later the quiet rooms' messages come than when the flood is on another process of the same server."""
    return results.ratio(scenario, beside_flood(quantile), f"{server}-apart", of=server)


EXPLAINED = """\
How many times later messages come in ten quiet rooms (20 members, 5 messages a second each) while another room is flooded on the same
process than while it is flooded on *another process of the same server on the same machine*; 1 is perfectly fair.

Why not compare with no flood at all: server and generators share {cores} cores, so a flood takes processor time from the quiet rooms' members
wherever it is, and most of what they would lose is no matter of rooms. Beside the other process the same sockets are
written to, by the same generator and at the same rates; the only difference is that the quiet rooms do not share threads, locks and
queues with the flood. There are ten quiet rooms and not one because in a single one a hundred messages are said in 20 seconds, of which one that met a bad
moment would be the 99th percentile. Where a server threw the flood's publishers out there was no flood to be felt: –.
"""


def fairness_section(results):
    rows = []
    for scenario in FLOODED:
        for server in ("ours", "gorilla", "axum-4k"):
            names = (server, f"{server}-apart")
            if not all(results.runs(scenario.name, name) for name in names):
                continue
            cells = []
            for quantile in ("p50", "p99"):
                same, other = (results.median(scenario.name, name, beside_flood(quantile)) for name in names)
                ratio = felt(results, scenario.name, server, quantile)
                cells += ["–" if value is None else f"{value:,.2f}" for value in (other, same, ratio)]
            rows.append(f"| {scenario.name} | {SERVERS[server].title} | " + " | ".join(cells) + " |")
    if not rows:
        return []
    head = ["| | | p50 ms, apart | same process | × | p99 ms, apart | same process | × |", "|---|---|---|---|---|---|---|---|"]
    return ["## Fairness between rooms", "", EXPLAINED.format(cores=results.all["machine"]["cores"]), *head, *rows, ""]
