"""The page of results: medians, ratios, and the bars that the first gateway is held against."""

from statistics import median

from scenarios import SCENARIOS
from servers import SERVERS

# How the gateway's metric of ended connections calls a member with too much waiting for it.
SLOW = 'reason="queue_full"'

# === figures of one report; None where it has none ===


def cost(report):
    return report["load"]["server_cpu_s_per_million"]


def latency(quantile):
    return lambda report: report["load"]["latency_ms"][quantile] if report["load"]["latency_ms"]["count"] else None


def cpu(report):
    used = report["load"]["server_cpu"]
    return used and used["user_s"] + used["system_s"]


def per_churn(report):
    joins = report["load"]["joins"]
    return cpu(report) * 1e6 / joins if joins else None


def per_ping(report):
    pings = report["load"]["pings"]
    return cpu(report) * 1e6 / pings if pings else None


def memory(field):
    return lambda report: (report["memory"] or {}).get(field)


def grown(report):
    """Resident memory of the server after load over that with all members idle."""
    seen = report["memory"] or {}
    if not seen.get("after") or not seen.get("connected"):
        return None
    return seen["after"]["rss"] / seen["connected"]["rss"]


def handshake(quantile):
    return lambda report: report["connecting"]["handshake_ms"][quantile]


def refused(report):
    return sum(report["connecting"]["failures"].values())


def lost(report):
    """Members thrown out or never let in, which a good run has none of."""
    return report["verification"]["thrown_out"] + refused(report)


def faults(report):
    return sum(report["verification"]["faults"].values())


def closes(code):
    return lambda report: report["closes"].get(str(code), {"count": 0})["count"]


def drain_spread(field):
    return lambda report: report["closes"].get("1012", {}).get(field)


def drain_seconds(report):
    spread = report["closes"].get("1012")
    return spread and spread["last_s"] - spread["first_s"]


def watched(field):
    return lambda report: report.get("watched", {}).get(field)


def connecting(field):
    return lambda report: report["connecting"][field]


def judged_slow(report):
    """Members that never read and that the gateway says it closed for being slow, with 1013: all it closed so, less
    those that did read and were thrown out. A peer without such a metric says nothing."""
    ended = report.get("server_ended")
    if not ended:
        return None
    judged = sum(count for labels, count in ended.items() if SLOW in labels)
    return judged - report["verification"]["thrown_out"]


def slow_closed(code):
    return lambda report: report["slow_closes"].get(str(code), 0)


# === tables: which figures of which scenarios stand side by side ===

COMMON = (
    ("deliveries a second", lambda report: report["load"]["deliveries_per_second"], 0),
    ("CPU s per million deliveries", cost, 2),
    ("p50 ms", latency("p50"), 2),
    ("p99 ms", latency("p99"), 2),
    ("members lost", lost, 0),
    ("faults", faults, 0),
)
CONNECTS = (
    ("connects a second", connecting("per_second"), 0),
    ("CPU µs per connect", connecting("server_cpu_us_per_connect"), 1),
    ("slowest handshake ms", handshake("max"), 0),
    ("refused", refused, 0),
    ("resident bytes per idle member", memory("rss_per_member"), 0),
    ("resident bytes per member after load", memory("rss_per_member_after"), 0),
    ("memory after load ÷ before", grown, 2),
    ("faults", faults, 0),
)
TABLES = {
    "churn": (
        ("CPU µs per join and leave", per_churn, 0),
        ("joins", lambda report: report["load"]["joins"], 0),
        ("members lost", lost, 0),
    ),
    "idle-one": CONNECTS,
    "idle-own": CONNECTS,
    "ping": (
        ("CPU µs per ping", per_ping, 1),
        ("pings in the window", lambda report: report["load"]["pings"], 0),
        ("members lost", lost, 0),
    ),
    "drain": (
        ("told 1012", closes(1012), 0),
        ("cut without a close", closes(1006), 0),
        ("seconds from first to last", drain_seconds, 2),
        ("largest distance from an even spread", drain_spread("unevenness"), 3),
        ("busiest second, cores", watched("peak_cores"), 2),
    ),
    "slow-12": COMMON + (
        ("peak resident MB", lambda report: (watched("peak_rss")(report) or 0) / 1e6, 1),
        ("members that the gateway closed as slow (1013)", judged_slow, 0),
        ("slow members that saw 1013", slow_closed(1013), 0),
        ("slow members closed without a code", slow_closed(1005), 0),
        ("slow members cut", slow_closed(1006), 0),
    ),
}
TABLES["slow-none"] = TABLES["slow-12"][:-4]


class Results:
    def __init__(self, results):
        self.scenarios = results["scenarios"]

    def runs(self, scenario, server):
        return self.scenarios.get(scenario, {}).get(server, [])

    def median(self, scenario, server, figure):
        values = [figure(report) for report in self.runs(scenario, server)]
        values = [value for value in values if value is not None]
        return median(values) if values else None

    def worst(self, scenario, server, figure):
        values = [figure(report) for report in self.runs(scenario, server)]
        values = [value for value in values if value is not None]
        return max(values) if values else None

    def ratio(self, scenario, figure, to, of="ours"):
        ours, theirs = self.median(scenario, of, figure), self.median(scenario, to, figure)
        return ours / theirs if ours is not None and theirs else None


# === bars: what the first gateway owes, each as (what, measured, holds when, in words) ===


def at_most(limit):
    return lambda value: value <= limit


def bars(results):
    ratio, ours, worst = results.ratio, lambda *of: results.median(of[0], "ours", of[1]), results.worst
    p50, p99 = latency("p50"), latency("p99")
    yield "one big room, CPU per delivery", ratio("a50", cost, "gorilla"), at_most(0.60), "≤ 0.60 × gorilla", 2
    yield "100 rooms, CPU per delivery", ratio("b10", cost, "gorilla"), at_most(0.65), "≤ 0.65 × gorilla", 2
    yield "400 thousand/s, CPU per delivery", ratio("ladder-400k", cost, "gorilla"), at_most(0.70), "≤ 0.70 × gorilla", 2
    yield "400 thousand/s, p99", ratio("ladder-400k", p99, "gorilla"), at_most(1), "no later than gorilla", 2
    yield "800 thousand/s, p99 in ms", ours("ladder-800k", p99), at_most(100), "below 100 ms", 1
    yield "800 thousand/s, members lost", worst("ladder-800k", "ours", lost), at_most(0), "nobody", 0
    yield "quiet rooms, p50", ratio("lb", p50, "gorilla"), at_most(1), "no later than gorilla", 2
    yield "quiet rooms, p99", ratio("lb", p99, "gorilla"), at_most(1), "no later than gorilla", 2
    yield "CPU per join and leave", ratio("churn", per_churn, "gorilla"), at_most(0.75), "≤ 0.75 × gorilla", 2
    # One without NATS is what the bar means; one through NATS tells what of it the second gateway is to blame for.
    for one, words in (("ours", "one alone"), ("ours-nats", "one through NATS")):
        for name, what in (("le", "quiet rooms"), ("e1", "one big room"), ("e100", "100 rooms")):
            two = ratio(name, cost, one, of="ours2")
            yield f"two gateways and NATS over {words}, {what}: CPU", two, at_most(1.35), "≤ 1.35 ×", 2
        for name, what in (("le", "quiet rooms"), ("e1", "one big room"), ("e100", "100 rooms")):
            later, before = results.median(name, "ours2", p50), results.median(name, one, p50)
            added = later - before if later is not None and before is not None else None
            yield f"two gateways and NATS over {words}, {what}: ms added to p50", added, at_most(0.15), "≤ 0.15 ms", 2
    idle, after = memory("rss_per_member"), grown
    yield "bytes per idle member, one room", ours("idle-one", idle), at_most(4096), "≤ 4,096", 0
    yield "bytes per idle member, own rooms", ours("idle-own", idle), at_most(6144), "≤ 6,144", 0
    yield "memory after load ÷ before, one room", ours("idle-one", after), at_most(1.3), "≤ 1.3", 2
    yield "memory after load ÷ before, own rooms", ours("idle-own", after), at_most(1.3), "≤ 1.3", 2
    yield "CPU µs per connect", ours("idle-one", connecting("server_cpu_us_per_connect")), at_most(40), "≤ 40", 1
    yield "storm of 10,000: refused", worst("idle-one", "ours", refused), at_most(0), "none", 0
    yield "storm of 10,000: slowest handshake ms", ours("idle-one", handshake("max")), at_most(250), "≤ 250", 0
    yield "CPU µs per ping", ours("ping", per_ping), at_most(12), "≤ 12", 1
    yield "drain of 10,000: told 1012", ours("drain", closes(1012)), lambda told: told == 10000, "all", 0
    yield "drain: distance from an even spread", ours("drain", drain_spread("unevenness")), at_most(0.10), "≤ 0.10", 3
    yield "12 slow members: closed as slow", ours("slow-12", judged_slow), lambda told: told == 12, "these 12", 0
    peaks = [results.median(name, "ours", watched("peak_rss")) for name in ("slow-12", "slow-none")]
    held = (peaks[0] - peaks[1]) / 12e6 if all(peaks) else None
    yield "MB held per slow member", held, at_most(0.3), "≤ 0.3", 2
    with_slow, without = ours("slow-12", p99), ours("slow-none", p99)
    yield "p99 of the others ÷ without slow ones", with_slow and without and with_slow / without, at_most(1.3), "≤ 1.3", 2
    seen = [worst(name, server, faults) for name in SCENARIOS for server in ("ours", "ours-nats", "ours2")]
    seen = [count for count in seen if count is not None]
    yield "deliveries missing, doubled, reordered, misrouted or corrupt, all runs", sum(seen) if seen else None, at_most(0), "none", 0


# === the page ===

HEAD = """\
# Benchmarks

What a delivery, a member, a connect and a ping cost, beside the servers one would otherwise write, on one machine over
loopback. Written by `make bench`; every figure is the median of {repeats} runs, and the runs of the servers take turns.
Absolute figures belong to this machine on this day: **compare the columns of one table**.

- **gorilla hub**: the chat server that gorilla tutorials teach (`bench/peers/gorilla`), with a hub for each room and
  without its log lines.
- **bare write loop**: no server at all but one `write` of the ready frame to each socket (`hubbub-floor`): the limit. With
  *collecting* it joins what is due within 5 ms into one call.

CPU is user + system time of the server's processes over the measured window; memory is resident growth. Latency counts
from the time a message was due, not from when the generator came to send it. Every delivery of every run is verified.

A slow member that never reads cannot see why it is closed: the gateway judges it with 1013 and cuts it when the close is not taken, so
it counts as closed by the gateway and as cut by the client. Bars in µs are absolute, and were set on a
machine where the bare write loop takes 8.5 µs for a connect; see its column for what it takes here.

| machine | |
|---|---|
| date | {date} |
| processor | {cpu}, {cores} cores shared by server and load |
| memory | {memory_gib} GiB |
| kernel | {kernel} |
| versions | {rust}; {go}; gorilla/websocket 1.5.3; {nats} |
| commit | {commit} |
| load average before the runs | {loads} |
"""


def number(value, digits):
    return "–" if value is None else f"{value:,.{digits}f}"


def bars_table(results):
    lines = ["## What is owed, and whether it holds", "", "| figure | measured | owed | |", "|---|---|---|---|"]
    for what, value, holds, owed, digits in bars(results):
        verdict = "not measured" if value is None else "holds" if holds(value) else "**missed**"
        lines.append(f"| {what} | {number(value, digits)} | {owed} | {verdict} |")
    return lines


def scenario_section(results, scenario):
    servers = [name for name in SERVERS if results.runs(scenario.name, name)]
    if not servers:
        return []
    yardstick = next((name for name in ("gorilla", "ours") if name in servers), None)
    lines = [f"### {scenario.name}: {scenario.title}", ""]
    lines.append("| | " + " | ".join(SERVERS[name].title for name in servers) + " |")
    lines.append("|---|" + "---|" * len(servers))
    for what, figure, digits in TABLES.get(scenario.name, COMMON):
        values = {name: results.median(scenario.name, name, figure) for name in servers}
        if not any(value is not None for value in values.values()):
            continue
        cells = []
        for name, value in values.items():
            text = number(value, digits)
            base = values.get(yardstick)
            if value is not None and base and name != yardstick and digits > 0:
                text += f" (× {value / base:.2f})"
            cells.append(text)
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    command = " ".join(["hubbub-load", "URL", *scenario.arguments()])
    return lines + ["", f"`{command}`", ""]


def write_document(results):
    reports = [run for of in results["scenarios"].values() for runs in of.values() for run in runs]
    loads = [run["load_average_before"] for run in reports]
    repeats = sorted({len(runs) for of in results["scenarios"].values() for runs in of.values() if runs})
    head = HEAD.format(
        **results["machine"], repeats=" or ".join(map(str, repeats)) or "no",
        loads=f"{min(loads):.1f} to {max(loads):.1f}" if loads else "–",
    )
    seen = Results(results)
    lines = [head, *bars_table(seen), "", "## All figures", "", "In parentheses: over the gorilla hub, or over one gateway.", ""]
    for scenario in SCENARIOS.values():
        lines += scenario_section(seen, scenario)
    return "\n".join(lines).rstrip() + "\n"
