"""What the page of benchmarks says of the last soak, and what of it is kept for that in bench/soak.json."""

import json

from servers import ROOT
from soak_gateways import COUNTS
from soak_judge import GROWTH_PER_10_MIN, MIB, WANTED_ENDS

RESULTS = ROOT / "bench/soak.json"

INTRODUCTION = """\
{minutes:.0f} minutes on {date} at {commit} ({profile} profile, {cpu}, {cores} cores): {cycles} cycles over two gateways and one NATS server. `make soak` makes it
and `bench/soak --write` writes this section; a shorter one is part of `make test`.

In a cycle, one after the other: **churn**, 500 members in 50 rooms, 50 of them leave and 50 join a second; **slow**, 100 members in 4 rooms, of whom
20 never read; **drain**, one of the gateways gets SIGTERM with its half of 500 members, ends and is started anew; **flood**, 20 members send half as
much again as their rooms allow, and ten others nothing but pings; **outage**, NATS is killed and comes back after 5 seconds on the same port, with 500 members
in their rooms. Then everybody leaves, and each gateway has to be what it was after its very first visitor: the same number of {counts}.
Tasks are those of the gateway's runtimes: a room that is subscribed to and a socket that speaks HTTP have one each, and members have none. Memory may grow by
{bound:.0f} MiB in ten minutes, by least squares over the quiet moments of the gateway that lives through all cycles, its first cycle left out. {arenas}

Each delivery is verified. In an outage messages may be lost, by design ([decision 5](decisions/0005-messages-while-nats-is-away.md)), so there it is only
counted; that all members stay connected is owed there, too.
"""
ARENAS = {
    1: "Gateways have a single arena of glibc (`MALLOC_ARENA_MAX=1`), lest what its arenas keep looks like a leak ([experiments](experiments.md#allocators)).",
    None: "Gateways had all of glibc's arenas, which come to their size within half an hour ([experiments](experiments.md#allocators)).",
}
OUTCOME = {True: "**All of it held.**", False: "**Not all of it held:**"}


def total(records, *path):
    """The sum of a figure over records."""
    found = 0
    for value in records:
        for key in path:
            value = value.get(key, 0) if value else 0
        found += value
    return found


def condensed(seen):
    """What is kept of all that a soak saw."""
    phases = {}
    for record in seen["phases"]:
        phases.setdefault(record["phase"], []).append(record)
    return {
        "measured": seen["measured"], "profile": seen["profile"], "minutes": seen["minutes"], "cycles": seen["cycles"],
        "arenas": seen["arenas"],
        "phases": {name: figures(name, records) for name, records in phases.items()},
        "gateways": seen["gateways"], "growth_bytes_per_10_min": seen["growth_bytes_per_10_min"],
        "complaints": seen["complaints"],
    }


def figures(name, records):
    return {
        "connections": sum(total(records, what) for what in ("connected", "joins", "reconnects")),
        "deliveries": total(records, "deliveries"),
        "faults": {fault: total(records, "faults", fault) for fault in records[0]["faults"]},
        "thrown_out": total(records, "thrown_out"),
        "seen": " ".join(deed(name, records)),
    }


def deed(name, records):
    """What happened in a phase beside deliveries."""
    if name == "churn":
        yield f"{total(records, 'leaves'):,} left, {total(records, 'joins'):,} joined"
    elif name == "slow":
        cut = sum(total(records, "ended", reason) for reason in WANTED_ENDS["slow"])
        yield f"{total(records, 'never_read'):,} never read, {cut:,} were cut for being slow"
    elif name == "drain":
        yield f"{total(records, 'sent_away'):,} sent away, {total(records, 'came_back'):,} came back to the other"
    elif name == "flood":
        yield f"{total(records, 'counted', 'throttled'):,} times held back; {total(records, 'pingers')} flooded with pings,"
        yield f"{total(records, 'ended', 'control_flood')} were closed for it"
    elif name == "outage":
        yield f"{total(records, 'counted', 'disconnects')} connections to NATS broke;"
        yield f"gateways count {total(records, 'counted', 'lost'):,} messages as lost or unconfirmed"


def mib(size):
    return f"{size / MIB:.1f}"


def of_gateways(gateways):
    """For a gateway that stays, and for those that are started anew: what was seen in their quiet moments."""
    quiet = [moment for gateway in gateways for moment in gateway["quiet"]]
    yield f"{len(gateways)}, {len(quiet)}"
    yield f"{mib(quiet[0]['rss'])}, {mib(quiet[-1]['rss'])}" if quiet else "–"
    for count in COUNTS:
        before = sorted({gateway["before"][count] for gateway in gateways})
        after = sorted({moment[count] for moment in quiet})
        yield f"{', '.join(map(str, before))} → {', '.join(map(str, after)) or '–'}"


def section(soak):
    """The lines of the page, from what `condensed` keeps."""
    machine = soak["measured"]["machine"]
    lines = ["## Soak", "", INTRODUCTION.format(
        minutes=soak["minutes"], date=soak["measured"]["date"], commit=soak["measured"]["commit"], profile=soak["profile"], cpu=machine["cpu"],
        cores=machine["cores"], cycles=soak["cycles"], counts=", ".join(COUNTS.values()), bound=GROWTH_PER_10_MIN / MIB,
        arenas=ARENAS[soak.get("arenas")])]
    lines += [OUTCOME[not soak["complaints"]], *(f"- {complaint}" for complaint in soak["complaints"]), ""]
    lines += ["| phase | connections | deliveries | missing, doubled, reordered, misrouted, corrupt | thrown out | |", "|---|---|---|---|---|---|"]
    for name, of in soak["phases"].items():
        faults = ", ".join(f"{count:,}" for count in of["faults"].values()) if any(of["faults"].values()) else "none"
        lines.append(f"| {name} | {of['connections']:,} | {of['deliveries']:,} | {faults} | {of['thrown_out']} | {of['seen']} |")
    sides = [[gateway for gateway in soak["gateways"] if gateway["name"] == name] for name in ("staying", "passing")]
    rows = ["processes, quiet moments", "resident MiB in the first and the last quiet moment"]
    rows += [f"{what} after the first visitor → in quiet moments" for what in COUNTS.values()]
    lines += ["", "| | the gateway that stays | those started anew |", "|---|---|---|"]
    lines += [f"| {row} | {staying} | {passing} |" for row, staying, passing in zip(rows, *map(of_gateways, sides))]
    grown = soak["growth_bytes_per_10_min"]
    return [*lines, f"| growth, MiB in ten minutes | {'–' if grown is None else f'{grown / MIB:.3f}'} | – |", ""]


def write(seen):
    """Keeps a soak for the page."""
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in condensed(seen).items()]
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read():
    """The soak that was kept last, if there is one."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else None
