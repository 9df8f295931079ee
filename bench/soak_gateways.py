"""What the soak runs on: two gateways over one NATS server, each a process that can be killed, drained and looked at."""

import http.client
import os
import re
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from scenarios import Scenario
from servers import ORIGIN, ROOM, BenchError, OursOverNats, Process

# Rooms by what happens in them: how many, and the limits that this takes. Publishers of floods send more than theirs allows
# (the default); members of slow rooms are pinged so seldom that they are cut for what waits for them, not for a missing pong.
ROOMS = {
    "steady": (50, "messagesPerSecond: 20, burst: 40", "pongWait: 30s, pingPeriod: 5s"),
    "slow": (4, "messagesPerSecond: 1000, burst: 1000", "pongWait: 5m, pingPeriod: 4m"),
    "flooded": (4, "messagesPerSecond: 20, burst: 40", "pongWait: 30s, pingPeriod: 5s"),
    "pinged": (1, "messagesPerSecond: 20, burst: 40", "pongWait: 30s, pingPeriod: 5s"),
}
# What all of them allow.
LIMITS = "maxConnections: 1000, maxMessageBytes: 1024"
# Everybody is sent away within this time; a member then comes back within two seconds (hubbub-load).
DRAIN = ("--drain-settle", "0s", "--drain-window", "3s", "--drain-deadline", "30s")
# How long something that must happen is awaited: far longer than it takes on a machine that does other things.
PATIENCE_S = 60
# Of glibc's allocator. With one for each thread, what they keep grows for half an hour, by as much as a leak would
# (docs/experiments.md); what is leaked is the same in a single one.
ARENAS = 1
METRIC = re.compile(r"^(hubbub_gateway_[a-z_]+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
# What must be the same whenever nobody is there: the name, and what it is in a sentence.
COUNTS = {
    "files": "open files", "threads": "threads", "tasks": "tasks", "connections": "connections",
    "subscriptions": "subscribed rooms", "sockets": "HTTP sockets",
}
GAUGES = {
    "tasks": "hubbub_gateway_tasks",
    "connections": "hubbub_gateway_connections", "subscriptions": "hubbub_gateway_bus_subscriptions",
    "sockets": "hubbub_gateway_http_sockets",
}


@dataclass
class Gateway:
    """One process, and what was counted of it before the first member came and whenever all had left."""

    name: str
    process: Process
    port: int
    admin: int
    before: dict = None
    quiet: list = field(default_factory=list)

    def metrics(self):
        """All its figures, by name with labels; BenchError if it is gone."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=PATIENCE_S) as answer:
                return {name: float(value) for name, value in METRIC.findall(answer.read().decode())}
        except (OSError, http.client.HTTPException) as error:
            raise self.gone(error) from error

    def look(self):
        """Its counts and resident bytes; BenchError if it is gone. The system's come first: being asked opens a socket."""
        process = Path(f"/proc/{self.process.pid}")
        try:
            seen = {
                "rss": int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
                "files": len(os.listdir(process / "fd")), "threads": len(os.listdir(process / "task")),
            }
        except OSError as error:
            raise self.gone(error) from error
        metrics = self.metrics()
        return seen | {name: int(metrics[metric]) for name, metric in GAUGES.items()}

    def gone(self, error):
        last = "\n".join(self.process.lines[-5:])
        return BenchError(f"the {self.name} gateway (exit code {self.process.child.poll()}) cannot be looked at: {error}\n{last}")

    def is_connected(self):
        return self.metrics()["hubbub_gateway_bus_connected"] == 1


def eventually(holds, limit=PATIENCE_S, period=0.2):
    """Waits until it holds, or the limit is over; says whether it holds."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(period)
    return True


def counts(look):
    return {name: look[name] for name in COUNTS}


class Deployment(OursOverNats):
    """Two gateways: one that lives as long as the soak, and one that is drained and started anew again and again."""

    gateways = 0  # started one by one below
    # For Server.start; the rooms are declared here.
    SCENARIO = Scenario("soak", "", 1)

    def begin_all(self):
        self.start(self.SCENARIO)
        self.variables = {**self.variables, "MALLOC_ARENA_MAX": str(ARENAS)}
        self.staying, self.passing = self.launch("staying"), self.launch("passing")
        self.all = self.both

    def replace_passing(self):
        """Starts a gateway in the place of the one that has drained."""
        self.passing = self.launch("passing")
        self.all.append(self.passing)

    def declare(self, scenario):
        for kind, (count, limits, heartbeat) in ROOMS.items():
            for number in range(1, count + 1):
                yield ROOM.format(name=f"{kind}-{number}", origin=ORIGIN, limits=f"{LIMITS}, {limits}", heartbeat=heartbeat)

    def start_bus(self):
        self.nats_port = self.start_nats()
        return ["--nats", f"nats://127.0.0.1:{self.nats_port}"]

    @property
    def both(self):
        return [self.staying, self.passing]

    def room_urls(self, kind):
        return [self.url(gateway.port, f"/rooms/bench/{kind}-{{room}}") for gateway in self.both]

    def launch(self, name):
        """Starts a gateway, and lets a first visitor in: what is made at the first use belongs to it, not to its members."""
        gateway = Gateway(name, *self.start_gateway(name, *DRAIN))
        if not eventually(gateway.is_connected):
            raise BenchError("a gateway did not connect to NATS:\n" + "\n".join(gateway.process.lines[-5:]))
        visit = Process([
            self.binaries / "hubbub-load", self.url(gateway.port, "/rooms/bench/steady-{room}"), "--rooms", "1", "--members", "1",
            "--warmup", "0s", "--duration", "1s", "--origin", ORIGIN, "--quiet",
        ])
        if visit.child.wait(PATIENCE_S):
            raise BenchError("the first visitor was not served:\n" + "\n".join(visit.lines[-5:]))
        gateway.before = self.at_rest(gateway)
        return gateway

    def at_rest(self, gateway):
        """The counts once nobody is there and three looks say the same."""
        looks = []

        def still():
            looks.append(counts(gateway.look()))
            return looks[-1]["connections"] == 0 and looks[-1]["subscriptions"] == 0 and looks[-3:] == 3 * looks[-1:]

        if not eventually(still):
            raise BenchError(f"the gateway {gateway.name} does not come to rest after one visitor: {looks[-3:]}")
        return looks[-1]

    def note_quiet(self, gateway, cycle, at):
        """Waits until a gateway that everybody has left is as it was, and notes how it is then, or when the patience is over."""
        seen = {}

        def as_before():
            seen.update(gateway.look())
            return counts(seen) == gateway.before

        eventually(as_before)
        gateway.quiet.append({"cycle": cycle, "at": round(at, 1), **seen})

    def kill_nats(self):
        self.nats.child.kill()
        self.nats.child.wait()

    def revive_nats(self):
        self.start_nats(self.nats_port)

    def drain(self, gateway):
        """Tells a gateway to end in good order, and gives its exit code; None if it did not end, and was killed."""
        gateway.process.child.send_signal(signal.SIGTERM)
        try:
            return gateway.process.child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            gateway.process.stop(limit=0)
            return None
