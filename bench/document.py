"""The page of results: medians, ratios, bars, and how the cost grows."""

import soak_page
from bars import bars, goals
from chart import chart
from fairness import fairness_section, flood, flood_arguments
from figures import (
    Results, closes, connecting, cost, drain_seconds, drain_spread, faults, grown, handshake, judged_slow, latency, lost, memory,
    per_churn, per_ping, rate, refused, slow_closed, watched,
)
from peers import SERVERS
from scenarios import SCENARIOS
from servers import ROOT

RESULTS, DOCUMENT = ROOT / "bench/results.json", ROOT / "docs/benchmarks.md"

# === tables: which figures of which scenarios stand side by side ===

COMMON = (
    ("deliveries a second", rate, 0),
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
CHURN = (
    ("CPU µs per join and leave", per_churn, 0),
    ("joins", lambda report: report["load"]["joins"], 0),
    ("members lost", lost, 0),
)
FLOODED = COMMON[2:] + (
    ("deliveries a second in the flooded room", flood("deliveries_per_second"), 0),
    ("members lost there", flood("thrown_out"), 0),
)
TABLES = {
    "churn": CHURN,
    "churn-big": CHURN,
    "idle-one": CONNECTS,
    "idle-own": CONNECTS,
    "ping": (
        ("CPU µs per ping", per_ping, 1),
        ("pings in the window", lambda report: report["load"]["pings"], 0),
        ("members lost", lost, 0),
    ),
    "drain": (
        ("told 1012", closes(1012), 0),
        ("told 1001 (NATS) or 3001 (Centrifugo)", lambda report: closes(1001)(report) + closes(3001)(report), 0),
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
TABLES.update((scenario.name, FLOODED) for scenario in SCENARIOS.values() if scenario.flood)


# === the page ===

HEAD = """\
# Benchmarks

What a delivery, a member, a connect and a ping cost, beside the servers one would otherwise write, on one machine over
loopback. Written by `make bench` from `bench/results.json`, the soak of `bench/soak.json` with it; every figure is the median of {repeats} runs, and the runs of the servers take turns.
Absolute figures belong to this machine on this day: **compare the columns of one table**.

- **bare write loop**: no server at all but one `write` of the ready frame to each socket (`hubbub-floor`): the limit. With
  *collecting* it joins what is due within 5 ms into one call.
  *Two bare write loops* pass every message on to each other: what a second server costs at the least.
- **gorilla hub**: the chat server that gorilla tutorials teach (`bench/peers/gorilla`), with a hub for each room and
  without its log lines. It throws out a member with 256 messages waiting.
- **axum**: WebSockets of axum and a tokio broadcast channel for each room (`bench/peers/axum`), with its defaults and with a read buffer of 4 KiB. A member
  that lags misses messages, which count as faults here.
- **Centrifugo**: the server, by its JSON protocol; **NATS**: the WebSocket listener of nats-server, by NATS's own protocol. A member subscribes to
  the channel or subject of its room.
- **Node.js ws**: a set of sockets for each room (`bench/peers/ws`).

CPU is user + system time of the server's processes over the measured window; memory is resident growth. Latency counts
from the time a message was due, not from when the generator came to send it. Every delivery of every run is verified.

A slow member that never reads cannot see why it is closed: the gateway judges it with 1013 and cuts it when the close is not taken, so
it counts as closed by the gateway and as cut by the client. Bars in µs are absolute, and were set on a
machine where the bare write loop takes 8.5 µs for a connect; see its column for what it takes here.

**Within noise** means that a bar cannot be told by this measure: of the runs side by side, some are on one side of it and some on the other.

| machine | |
|---|---|
| processor | {cpu}, {cores} cores shared by server and load |
| memory | {memory_gib} GiB |
| kernel | {kernel} |
| versions | {versions} |
"""


def number(value, digits):
    return "–" if value is None else f"{value:,.{digits}f}"


VERDICTS = {True: "holds", False: "**missed**", None: "within noise"}


def bars_table(head, owed_bars):
    lines = [head, "", "| figure | measured | owed | |", "|---|---|---|---|"]
    for what, value, holds, owed, digits in owed_bars:
        verdict = "not measured" if value is None else VERDICTS[holds(value)]
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
    commands = [" ".join(["hubbub-load", "URL", *scenario.arguments()])]
    if scenario.flood:
        commands.append(" ".join(["hubbub-load", "URL", *flood_arguments(scenario)]))
    return lines + ["", " beside ".join(f"`{command}`" for command in commands), "", provenance(results, scenario, servers), ""]


def provenance(results, scenario, servers):
    """When and at which commit: scenarios can be measured one by one, and servers, too."""
    runs = [report for name in servers for report in results.runs(scenario.name, name)]
    measured = sorted({(report["measured"]["date"], report["measured"]["commit"]) for report in runs})
    loads = [report["load_average_before"] for report in runs]
    counts = sorted({len(results.runs(scenario.name, name)) for name in servers})
    when = ", ".join(f"{date} at {commit}" for date, commit in measured)
    return f"{' or '.join(map(str, counts))} runs each on {when}; load average before them {min(loads):.1f} to {max(loads):.1f}."


# === growth ===

GROWTH_NAME = "growth.svg"
GROWTH = (
    ("CPU per delivery as one room grows", "members of the room, 20,000 deliveries a second in all",
     [(10, "members-10"), (100, "members-100"), (1000, "members-1000"), (10000, "rooms-1")],
     "A message is read once for all in the room: for ten deliveries in the first step, for 10,000 in the last."),
    ("CPU per delivery as rooms become more", "rooms, of 10,000 members in all, 20,000 deliveries a second",
     [(1, "rooms-1"), (10, "rooms-10"), (100, "rooms-100"), (1000, "rooms-1000"), (10000, "rooms-10000")],
     "A message is read once for all in its room: for 10,000 deliveries in the first step, for a single one in the last."),
)


def growth_lines(results, steps):
    """For each server that took part in all of a sweep: its name and its cost at each step."""
    for name in ("ours", "floor", "gorilla"):
        points = [(x, results.median(scenario, name, cost)) for x, scenario in steps]
        if all(y is not None for _, y in points):
            yield SERVERS[name].title, points


def growth_chart(results):
    """The picture, if all that it shows was measured."""
    seen = Results(results)
    panels = [(title, x, "µs of CPU per delivery", list(growth_lines(seen, steps))) for title, x, steps, _ in GROWTH]
    return chart("CPU per delivery as rooms and members grow", panels) if all(lines for *_, lines in panels) else None


def growth_section(results):
    lines = []
    for title, x, steps, note in GROWTH:
        servers = list(growth_lines(results, steps))
        if not servers:
            continue
        lines += [f"### {title}", "", f"µs of CPU per delivery; in the head: {x}. {note}", ""]
        lines.append("| | " + " | ".join(f"{count:,}" for count, _ in steps) + " | dearest ÷ cheapest |")
        lines.append("|---|" + "---|" * (len(steps) + 1))
        for name, points in servers:
            costs = [y for _, y in points]
            cells = [f"{y:.2f}" for y in costs] + [f"{max(costs) / min(costs):.2f}"]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    if lines:
        picture = [f"![CPU per delivery as rooms and members grow]({GROWTH_NAME})", ""] if growth_chart(results.all) else []
        return ["## Growth", "", *picture, *lines]
    return []


def write_document(results, soak=None):
    """The page's text, from what was measured and from the last soak."""
    repeats = sorted({len(runs) for of in results["scenarios"].values() for runs in of.values() if runs})
    machine = {**results["machine"], "versions": "; ".join(results["machine"]["versions"])}
    head = HEAD.format(**machine, repeats=" or ".join(map(str, repeats)) or "no")
    seen = Results(results)
    lines = [head, *bars_table("## What is owed, and whether it holds", bars(seen)), ""]
    lines += [*bars_table("## How far it is to the goals", goals(seen)), ""]
    lines += [*growth_section(seen), *fairness_section(seen), *(soak_page.section(soak) if soak else [])]
    lines += ["## All figures", "", "In parentheses: over the gorilla hub, or over one gateway.", ""]
    for scenario in SCENARIOS.values():
        lines += scenario_section(seen, scenario)
    return "\n".join(lines).rstrip() + "\n"


def write_page(results, path):
    """Writes the page, and beside it the picture if all that it shows was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write_document(results, soak_page.read()))
    picture = growth_chart(results)
    if picture:
        (path.parent / GROWTH_NAME).write_text(picture)
