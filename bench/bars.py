"""The bars that the gateway is held against, each as (what, measured, holds when, in words, digits). Where the runs differ
too much to tell, it neither holds nor is missed: None."""

from figures import (
    closes, connecting, cost, drain_spread, faults, grown, handshake, judged_slow, latency, lost, memory, per_churn, per_ping,
    refused, watched,
)
from fairness import FLOODED, OWED, felt
from scenarios import SCENARIOS


def at_most(limit):
    return lambda value: value <= limit


def unless_noise(holds, pairs):
    """For a bar close to what is measured: it tells nothing when some of the runs side by side are on one side of it and
    some on the other."""
    return lambda value: None if len({holds(pair) for pair in pairs}) > 1 else holds(value)


def held_per_slow(results):
    """Megabytes that each of the twelve who never read costs."""
    peaks = [results.median(name, "ours", watched("peak_rss")) for name in ("slow-12", "slow-none")]
    return (peaks[0] - peaks[1]) / 12e6 if all(peaks) else None


def bars(results):
    """What the first gateway owes."""
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
    for name, what in (("trace-one", "one big room"), ("trace-many", "100 rooms")):
        traced = ratio(name, cost, "ours", of="ours-traced")
        holds = unless_noise(at_most(1.03), results.pairs(name, cost, "ours", of="ours-traced"))
        yield f"one of a hundred messages traced over none, {what}: CPU", traced, holds, "≤ 1.03 ×", 3
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
    yield "MB held per slow member", held_per_slow(results), at_most(0.3), "≤ 0.3", 2
    with_slow, without = ours("slow-12", p99), ours("slow-none", p99)
    yield "p99 of the others ÷ without slow ones", with_slow and without and with_slow / without, at_most(1.3), "≤ 1.3", 2
    for scenario in FLOODED:
        what = f"p99 in quiet rooms beside a flood ÷ with the flood elsewhere, {scenario.name}"
        yield what, felt(results, scenario.name, "ours"), lambda times: times < OWED, f"< {OWED}", 2
    seen = [worst(name, server, faults) for name in SCENARIOS for server in ("ours", "ours-nats", "ours2")]
    seen = [count for count in seen if count is not None]
    yield "deliveries missing, doubled, reordered, misrouted or corrupt, all runs", sum(seen) if seen else None, at_most(0), "none", 0


def goals(results):
    """What the work on speed is to reach. Like `bars`."""
    ratio, ours = results.ratio, lambda *of: results.median(of[0], "ours", of[1])
    p50, p99 = latency("p50"), latency("p99")
    yield "one big room, CPU per delivery", ratio("a50", cost, "floor"), at_most(1.10), "≤ 1.10 × bare loop", 2
    yield "100 rooms, CPU per delivery", ratio("b10", cost, "floor"), at_most(1.15), "≤ 1.15 × bare loop", 2
    yield "400 thousand/s, CPU per delivery", ratio("ladder-400k", cost, "floor5"), at_most(1.15), "≤ 1.15 × collecting loop", 2
    yield "400 thousand/s, p99 in ms", ours("ladder-400k", p99), at_most(15), "≤ 15 on a quiet machine", 1
    yield "3,200 thousand/s, CPU s per million", ours("ladder-3200k", cost), at_most(0.25), "≤ 0.25", 2
    yield "3,200 thousand/s, p99 in ms", ours("ladder-3200k", p99), at_most(30), "≤ 30", 1
    yield "3,200 thousand/s, members lost", results.worst("ladder-3200k", "ours", lost), at_most(0), "nobody", 0
    yield "quiet rooms, p50", ratio("lb", p50, "floor"), at_most(1.10), "≤ 1.10 × bare loop", 2
    yield "quiet rooms, p99", ratio("lb", p99, "floor"), at_most(1.10), "≤ 1.10 × bare loop", 2
    yield "CPU per join and leave", ratio("churn", per_churn, "gorilla"), at_most(0.30), "≤ 0.30 × gorilla", 2
    for name, what in (("le", "quiet rooms"), ("e1", "one big room"), ("e100", "100 rooms")):
        two, bare = ratio(name, cost, "ours", of="ours2"), ratio(name, cost, "floor", of="floor2")
        owed = f"≤ 1.10 × (two bare loops over one: {bare:.2f} ×)" if bare else "≤ 1.10 ×"
        yield f"two gateways and NATS over one alone, {what}: CPU", two, at_most(1.10), owed, 2
        later, before = results.median(name, "ours2", p50), results.median(name, "ours", p50)
        added = later - before if later is not None and before is not None else None
        yield f"two gateways and NATS over one alone, {what}: ms added to p50", added, at_most(0.08), "≤ 0.08 ms", 2
    idle = memory("rss_per_member")
    yield "bytes per idle member, one room", ours("idle-one", idle), at_most(2048), "≤ 2,048", 0
    yield "bytes per idle member, own rooms", ours("idle-own", idle), at_most(3072), "≤ 3,072", 0
    yield "memory after load ÷ before, one room", ours("idle-one", grown), at_most(1.05), "≤ 1.05", 2
    yield "memory after load ÷ before, own rooms", ours("idle-own", grown), at_most(1.05), "≤ 1.05", 2
    per_connect, rate = connecting("server_cpu_us_per_connect"), connecting("per_second")
    yield "CPU per connect", ratio("idle-one", per_connect, "gorilla"), at_most(0.22), "≤ 0.22 × gorilla", 2
    yield "storm of 10,000, connects a second", ratio("idle-one", rate, "floor"), lambda value: value >= 0.9, "≥ 0.9 × bare loop", 2
    yield "CPU µs per ping", ours("ping", per_ping), at_most(6), "≤ 6", 1
    yield "drain of 10,000: busiest second, cores", ours("drain", watched("peak_cores")), lambda value: value < 0.5, "below 0.5", 2
    yield "MB held per slow member", held_per_slow(results), at_most(0.07), "≤ 0.07", 2
    with_slow, without = ours("slow-12", p99), ours("slow-none", p99)
    yield "p99 of the others ÷ without slow ones", with_slow and without and with_slow / without, at_most(1.05), "≤ 1.05", 2
