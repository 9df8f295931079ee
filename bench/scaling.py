"""Calculates the tables of docs/scaling.md; that page tells the formulas, and where each figure comes from.

Without arguments it prints all of them, with --write it puts them into the page. With --members it prints one column for figures of your own.
"""

import argparse
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/scaling.md"

# === measured: docs/benchmarks.md of 2026-11-27 by scenario (le of the 25th), unless it says otherwise ===
BIG, SMALL = 9.46e-6, 13.3e-6       # CPU s a delivery, 100 or more members of a room on the gateway (a50), or fewer (lb)
HOP = 37e-6                         # CPU s a message and gateway by way of NATS, all three processes: (14.0 - 10.3) × 20 ÷ 2 (le)
PING, CHURN = 19.8e-6, 173e-6       # CPU s a ping (ping), a join with its leave (churn)
HANDSHAKES, WRITES = 15272, 307     # a second, the load on the same 2 cores (idle-one); to the API: 4 × 1,000 rooms in 13 s (ARCHITECTURE.md)
MEMBER, SOCKET, GATEWAY = 511, 4600, 11e6   # bytes of an idle member (idle-one), its socket (docs/operations.md), a gateway (slow-none)
OPERATOR, WATCHED = 40 << 20, 6.8 * 1024    # bytes of an operator, and for each room: 47 MiB at 1,000, 107 at 10,000 (ARCHITECTURE.md)
# === read from the source, not measured ===
SUBSCRIBED, DECLARED, HEARD = 6144, 1024, 100   # bytes of a gateway for a room with members, declared, in another's report
PARSED, COUNTED = 0.3e-6, 0.1e-6    # CPU s for a room in a report that is read, for bringing its sum up to date if anything changed
REPORT, ENTRY, POLICY, OBJECT = 188, 30, 400, 2500  # bytes of a report, a room in it, a policy in the bucket, a ChatRoom in etcd
PERIOD, COUNTERS, HELD, STEP = 2, 30, 2048, 30  # s between reports, between writes of counters; messages that wait; s a gateway of a rollout
WINDOW, PING_PERIOD = 20, 54        # s in which a drained gateway sends its members away, between pings
# === assumed ===
CORES, HEADROOM, SHARDS, LIFE = 4, 2, 4, 1800   # of a gateway; a processor is planned for half; s that a member stays
WIRE, FRAME = 220, 190              # bytes of a message of 128 to a member with TLS and TCP, and on NATS
ROUTED, LINK = 400e3, 625e6         # messages in and out of a server of NATS a second, bytes out: half of what 4 cores and 10 Gbit/s carry
INTEREST, READ, COMPACTION = 1024, 50e3, 300    # bytes of NATS for a subject wanted; policies read a second; s that etcd keeps what was replaced
PAYLOAD, CONSUMERS, POOL, CHART, QUOTA = 1 << 20, 1000, 500, 256 << 20, 2 << 30  # limits


@dataclass(frozen=True)
class Case:
    name: str
    members: float          # of all rooms
    room: float             # members of one
    rate: float             # messages a second in one
    pools: int = 1
    hashed: bool = False    # whether the proxy sends all members of a room to one gateway
    per_gateway: float = 20000


MIXES = (
    Case("broadcast", 1e6, 100000, 2), Case("live", 1e6, 1000, 5),
    Case("groups", 1e6, 50, 0.2), Case("groups, 10 pools", 1e6, 50, 0.2, pools=10), Case("groups, hashed", 1e6, 50, 0.2, hashed=True),
    Case("pairs", 1e6, 2, 0.1), Case("pairs, hashed", 1e6, 2, 0.1, hashed=True),
)


def touched(members, of):
    """How many of so many gateways, or servers, have at least one of the members, if each goes to any of them."""
    return of * (1 - (1 - 1 / of) ** members)


def report_load(gateways, occupied):
    """Cores that a gateway needs for the reports of its pool, each with so many rooms; one task does it."""
    return gateways / PERIOD * occupied * (PARSED + COUNTED)


def plan(case):
    rooms, least = case.members / case.room, max(2, ceil(case.members / case.per_gateway))
    while True:
        pool = ceil(least / case.pools)
        n = pool * case.pools
        where = max(1, case.room / case.per_gateway) if case.hashed else touched(case.room, pool)
        said, deliveries = rooms * case.rate, case.members * case.rate
        cost = BIG if case.room / where >= 100 else SMALL
        cores = deliveries * cost + said * where * HOP + case.members * (PING / PING_PERIOD + CHURN / LIFE)
        if n >= cores * HEADROOM / CORES:
            break
        least = max(n + 1, ceil(cores * HEADROOM / CORES))
    occupied = rooms * where / n
    reports = n / PERIOD * (report := REPORT + ENTRY * occupied) * (pool + 1)
    servers = max(3, ceil((said * (1 + where)) / ROUTED), ceil((said * where * FRAME + reports) / LINK))
    each = (GATEWAY + case.members / n * (MEMBER + SOCKET) + rooms * DECLARED + occupied * SUBSCRIBED
            + (pool - 1) * occupied * HEARD)
    writes = rooms / (COUNTERS + LIFE / (2 * case.room))
    return {
        "rooms": rooms, "gateways": n, "pool": pool, "cores": cores, "memory": each, "egress": deliveries * WIRE * 8,
        "occupied": occupied, "connections": n * SHARDS, "subscriptions": rooms * where,
        "said": said, "out": said * where, "bytes": said * where * FRAME, "reports": reports, "servers": servers,
        "routes": said * (servers - 1) * (1 - (1 - 1 / servers) ** where),
        "interest": (rooms * where / servers + rooms * touched(where, servers) * (servers - 1) / servers) * INTEREST,
        "away": HELD / (said / n), "bucket": rooms * POLICY, "start": rooms / READ, "report": report,
        "heard": pool / PERIOD * report, "task": report_load(pool, occupied),
        "operator": OPERATOR + rooms * WATCHED + n * occupied * HEARD, "told": n / PERIOD * report,
        "writes": writes, "restart writes": rooms / COUNTERS,
        "etcd": rooms * OBJECT + min(rooms / COUNTERS, WRITES) * OBJECT * COMPACTION,
        "rollout": pool * (STEP + rooms / READ) / 60, "comebacks": case.pools * case.members / n / WINDOW,
        "herd": case.members / n / max(1, pool - 1),
    }


def short(value):
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")):
        if value >= size * 0.995:
            return f"{value / size:.0f}{name}" if value >= 9.95 * size else f"{value / size:.1f}{name}".replace(".0", "")
    return f"{value:.1g}" if value >= 0.01 else "0"


ROWS = (  # what, which figures, in which words, and the limit of the first, beyond which it is in bold
    ("rooms", ("rooms",), "{}", None),
    ("gateways, in a pool", ("gateways", "pool"), "{}, {}", CONSUMERS),
    ("cores busy, NATS included", ("cores",), "{}", None),
    ("memory of a gateway, sockets included", ("memory",), "{}B", None),
    ("egress to members, bit/s", ("egress",), "{}", None),
    ("rooms with members on a gateway", ("occupied",), "{}", None),
    ("NATS: connections, subscriptions", ("connections", "subscriptions"), "{}, {}", None),
    ("NATS: messages a second in, out", ("said", "out"), "{}, {}", None),
    ("NATS: bytes a second out, messages and reports", ("bytes", "reports"), "{}, {}", None),
    ("NATS: servers, messages a second on routes", ("servers", "routes"), "{}, {}", 10),
    ("NATS: memory of a server for subjects", ("interest",), "{}B", None),
    ("s without NATS until messages are lost", ("away",), "{}", None),
    ("bucket, s to read it", ("bucket", "start"), "{}B, {}", None),
    ("a report", ("report",), "{}B", PAYLOAD),
    ("cores of a gateway for reports, bytes a second heard", ("task", "heard"), "{}, {}", 1),
    ("operator: memory, bytes a second heard", ("operator", "told"), "{}B, {}", CHART),
    ("status writes a second in a rollout, else", ("restart writes", "writes"), "{}, {}", WRITES),
    ("etcd, with 5 minutes of history", ("etcd",), "{}B", QUOTA),
    ("minutes of a rollout, comebacks a second", ("rollout", "comebacks"), "{}, {}", None),
    ("handshakes of each other gateway when one dies", ("herd",), "{}", HANDSHAKES),
)
BREAKS = (
    ("status writes in a rollout, 307 a second", "restart writes", WRITES), ("memory of the operator, 256 MiB", "operator", CHART),
    ("reports, one core of each gateway", "task", 1), ("etcd, 2 GiB", "etcd", QUOTA), ("servers of NATS, ten", "servers", 10),
    ("gateways of a pool, 500", "pool", POOL), ("gateways on NATS 2.15, 1,000", "gateways", CONSUMERS),
)
OMITTED = ("rooms", "cores", "occupied", "interest", "away", "report", "herd")    # where all is too much
SIZES, POOLS = (5000, 20000, 50000, 100000), (5, 10, 20, 50, 100, 200, 500)
SIZED = (("gateways", "gateways"), ("memory of one, sockets included, in bytes", "memory"), ("cores of one for reports", "task"),
         ("minutes of a rollout", "rollout"), ("comebacks a second", "comebacks"), ("handshakes of each other when one dies", "herd"))


def table(head, rows):
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def cell(of, names, words, limit):
    text = words.format(*(short(of[name]) for name in names))
    return f"**{text}**" if limit and of[names[0]] > limit else text


def columns(cases, rows=ROWS):
    return table(["", *(case.name for case in cases)], ([what, *(cell(plan(case), *rest) for case in cases)] for what, *rest in rows))


def breaking(case):
    """For each of the limits, the fewest members, in steps of a fiftieth, with which it is passed."""
    found, members = {}, max(case.room, 10000)
    while len(found) < len(BREAKS):
        of = plan(replace(case, members=members))
        found = {name: members for _, name, limit in BREAKS if of[name] > limit} | found
        members *= 1.02
    return found


def tables():
    large = [replace(case, members=100 * case.members, pools=pools, name=f"{case.name.split(', 10 ')[0]}, {pools:,} pools")
             for case, pools in zip(MIXES, (10, 15, 10, 1000, 10, 10, 10))]
    broken = {case.name: breaking(case) for case in MIXES if case.pools == 1}
    sizes = [plan(replace(MIXES[2], per_gateway=size)) for size in SIZES]
    most = [min(1 / report_load(pool, 1), (PAYLOAD - REPORT) / ENTRY) for pool in POOLS]
    return {
        "million": columns(MIXES), "hundred": columns(large, [row for row in ROWS if row[1][0] not in OMITTED]),
        "breaks": table(["", *broken], ([what, *(short(at[name]) for at in broken.values())] for what, name, _ in BREAKS)),
        "sizes": table(["members of a gateway", *map(short, SIZES)], ([what, *(short(of[name]) for of in sizes)] for what, name in SIZED)),
        "reports": table(["gateways of a pool", *map(str, POOLS)], [["rooms with members on each, at most", *map(short, most)]]),
    }


def with_tables(page):
    for name, text in tables().items():
        begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = before + begin + text + end + rest.split(end, 1)[1]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scaling.md")
    for name, value in (("members", None), ("room", 50), ("rate", 0.2), ("pools", 1), ("per-gateway", 20000)):
        parser.add_argument(f"--{name}", type=int if name == "pools" else float, default=value)
    parser.add_argument("--hashed", action="store_true", help="all members of a room go to one gateway")
    given = parser.parse_args()
    if given.members:
        print(columns([Case(**{name: value for name, value in vars(given).items() if name != "write"}, name="yours")]))
    elif given.write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print("\n\n".join(f"{name}\n\n{text}" for name, text in tables().items()))


if __name__ == "__main__":
    main()
