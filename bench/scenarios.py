"""The scenarios: what load each puts on, and which servers are compared in it."""

import os
import signal
import threading
import time
from dataclasses import dataclass

# Everything one might run instead.
PEERS = ("gorilla", "axum", "axum-4k", "centrifugo", "nats", "ws")
ALL = ("ours", "floor", *PEERS)
# Those that grow with what they hold, or come near the limit: the others would take the time of all.
NEAR = ("ours", "floor", "gorilla", "axum-4k", "centrifugo")
SOURCES = ",".join(f"127.0.0.{last}" for last in range(1, 5))


@dataclass(frozen=True)
class Flood:
    """What goes on in one more room meanwhile."""

    members: int
    rate: float
    publishers: int
    # Messages a second that the room allows one member; 0: more than are sent.
    limit: int = 0

    def arguments(self, duration):
        return [
            "--members", str(self.members), "--rate", str(self.rate), "--publishers", str(self.publishers),
            "--duration", duration, "--size", "128", "--source-addresses", SOURCES,
            # What publishers above the limit have sent arrives long after them, and is not waited for.
            *(("--tail", "0s") if self.limit else ()),
        ]


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    members: int
    rooms: int = 1
    rate: float = 0
    publishers: int = 1
    duration: str = "10s"
    options: tuple = ()
    servers: tuple = ALL
    pong_wait: int = 60
    drain: bool = False
    watch: bool = False
    flood: Flood | None = None

    def arguments(self):
        return [
            "--members", str(self.members), "--rooms", str(self.rooms), "--rate", str(self.rate),
            "--publishers", str(self.publishers), "--duration", self.duration, "--size", "128",
            "--source-addresses", SOURCES, *self.options,
        ]


def ladder(rate, servers):
    return Scenario(
        f"ladder-{rate}k", f"one room × 1,000, {rate} thousand deliveries a second", 1000, rate=rate,
        publishers=10, duration="6s", servers=servers,
    )


WITH_COLLECTING = ("ours", "floor", "floor5", "gorilla", "axum-4k", "centrifugo")
GROWTH = ("ours", "floor", "gorilla")
TRACED = ("ours", "ours-traced")
PAIR = ("ours", "ours-nats", "ours2", "floor", "floor2")
SLOW = ("ours", "gorilla", "axum-4k", "centrifugo", "nats", "ws")

FAIR = ("ours", "ours-apart", "gorilla", "gorilla-apart", "axum-4k", "axum-4k-apart")

# Deliveries a second of the steps of growth: enough to measure, and far from what any of the servers can do.
GROWTH_RATE = 20000


def grow_members(members):
    return Scenario(
        f"members-{members}", f"one room × {members:,}, {GROWTH_RATE // members:,} messages a second", members,
        rate=GROWTH_RATE / members, duration="6s", options=("--tail", "30s"), servers=GROWTH,
    )


def grow_rooms(rooms):
    """Ten thousand members, of whom each hears two messages a second, in so many rooms."""
    members = 10000 // rooms
    noun = "room" if rooms == 1 else "rooms"
    return Scenario(
        f"rooms-{rooms}", f"{rooms:,} {noun} × {members:,}, 2 messages a second each", members, rooms, rate=2, duration="6s",
        options=("--tail", "30s"), servers=GROWTH,
    )


def fair(name, title, flood, servers=FAIR):
    """Ten quiet rooms, of which one message is no more than a thousandth of all: a 99th percentile is not the one message
    that met a bad moment."""
    return Scenario(f"fair-{name}", f"10 rooms × 20, 5 messages a second each, {title}", 20, 10, rate=5, duration="20s",
                    flood=flood, servers=servers)


SCENARIOS = {scenario.name: scenario for scenario in (
    Scenario("a50", "one room × 1,000, 50 messages a second", 1000, rate=50, publishers=10),
    Scenario("b10", "100 rooms × 50, 10 messages a second each", 50, 100, rate=10),
    Scenario("lb", "100 rooms × 20, 5 messages a second each", 20, 100, rate=5),
    ladder(200, WITH_COLLECTING),
    ladder(400, WITH_COLLECTING),
    ladder(800, WITH_COLLECTING),
    ladder(1600, ("ours", "floor5", "gorilla", "axum-4k", "centrifugo")),
    ladder(3200, ("ours", "floor5")),
    Scenario("churn", "500 members in 50 rooms, 1,000 of them leave and 1,000 join a second", 10, 50,
             options=("--churn", "1000")),
    Scenario("churn-big", "one room of 10,000 members, 1,000 of them leave and 1,000 join a second", 10000,
             options=("--churn", "1000", "--tail", "30s"), servers=NEAR),
    *(grow_members(members) for members in (10, 100, 1000)),
    *(grow_rooms(rooms) for rooms in (1, 10, 100, 1000, 10000)),
    # As many as the 20,000 open files allow that a process is often given at most.
    Scenario("pairs", "9,500 rooms × 2, a message a second each", 2, 9500, rate=1, duration="6s", options=("--tail", "30s"),
             servers=NEAR),
    Scenario("le", "100 rooms × 20, 5 messages a second each, over one, alone and with NATS, and over two", 20, 100,
             rate=5, servers=PAIR),
    Scenario("e1", "one room × 1,000, 50 messages a second, over one, alone and with NATS, and over two", 1000, rate=50,
             publishers=10, servers=PAIR),
    Scenario("e100", "100 rooms × 20, 20 messages a second each, over one, alone and with NATS, and over two", 20, 100, rate=20,
             servers=PAIR),
    Scenario("trace-one", "one room × 1,000, 50 messages a second, one of a hundred messages traced or none", 1000, rate=50,
             publishers=10, servers=TRACED),
    Scenario("trace-many", "100 rooms × 50, 10 messages a second each, one of a hundred messages traced or none", 50, 100, rate=10,
             servers=TRACED),
    Scenario("idle-one", "10,000 members of one room: connect at once, idle, then 10 messages a second", 10000,
             rate=10, duration="5s", options=("--idle", "3s", "--tail", "30s")),
    Scenario("idle-own", "10,000 members, each in a room of its own: the same, a message each 5 seconds", 1, 10000,
             rate=0.2, duration="5s", options=("--idle", "3s", "--tail", "30s")),
    Scenario("ping", "10,000 idle members, each pinged every 4 seconds", 10000, duration="16s", pong_wait=5,
             servers=("ours", *PEERS)),
    Scenario("drain", "SIGTERM with 10,000 members", 10000, duration="60s", drain=True,
             options=("--expect-close", "1001,1012,3001"), servers=("ours", "gorilla", "centrifugo", "nats")),
    Scenario("slow-none", "250 members that all read, 400 messages of 500 bytes a second", 250, rate=400,
             options=("--size", "500"), duration="15s", watch=True, servers=SLOW),
    Scenario("slow-12", "the same, and 12 of the 250 never read", 250, rate=400,
             options=("--size", "500", "--slow", "12"), duration="15s", watch=True, servers=SLOW),
    fair("none", "and no flood", None, ("ours", "gorilla", "axum-4k")),
    fair("200k", "beside a room of 1,000 with 200 thousand deliveries a second", Flood(1000, 200, 10)),
    fair("800k", "beside a room of 1,000 with 800 thousand deliveries a second", Flood(1000, 800, 10)),
    fair("limited", "beside a room of 500 where 50 members send twice what it allows them", Flood(500, 2000, 50, limit=20),
         ("ours", "ours-apart")),
)}


class Watch:
    """Looks at the server ten times a second: its largest memory, its busiest second."""

    def __init__(self, pids):
        self.pids = pids
        self.peak_rss = 0
        self.peak_cores = 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self):
        ticks = os.sysconf("SC_CLK_TCK")
        page = os.sysconf("SC_PAGE_SIZE")
        past = []
        while not self.over.wait(0.1):
            try:
                stats = [open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split() for pid in self.pids]
            except (OSError, IndexError):
                return
            self.peak_rss = max(self.peak_rss, sum(int(stat[21]) * page for stat in stats))
            past.append((time.monotonic(), sum(int(stat[11]) + int(stat[12]) for stat in stats) / ticks))
            then = next(((at, cpu) for at, cpu in past if past[-1][0] - at <= 1.05), None)
            if then and past[-1][0] - then[0] >= 0.9:
                self.peak_cores = max(self.peak_cores, (past[-1][1] - then[1]) / (past[-1][0] - then[0]))

    def end(self):
        self.over.set()
        self.thread.join()
        return {"peak_rss": self.peak_rss, "peak_cores": self.peak_cores}


def begin_drain(load, server):
    """Waits until all members are in, and tells the server to end."""
    load.await_line(lambda line: line.startswith("measure"), limit=120)
    watch = Watch(server.pids)
    for pid in server.pids:
        os.kill(pid, signal.SIGTERM)
    return watch
