"""What happens to the gateways in a cycle of the soak, one thing after another. Each phase gives a record of what was seen."""

import contextlib
import json
import socket
import time

from servers import ORIGIN, BenchError, Process
from soak_gateways import PATIENCE_S, ROOMS, eventually

# How long NATS is away.
AWAY_S = 5
# Of 25 members of each slow room these never read.
SLOW_PER_ROOM = 5
# Those that send pings without end, one after the other. A gateway takes 50 at once.
PINGERS, PINGS = 10, 200

# Frames of a client (RFC 6455, 5.2), masked with zeros: an empty ping, and a close with 1008.
PING = b"\x89\x80\0\0\0\0"
CLOSE = b"\x88\x82\0\0\0\0\x03\xf0"
CLOSE_BEGINS = b"\x88"

CLOSED = "hubbub_gateway_connections_closed_total"
# Counters that tell what a phase did beside ending connections; of one that is named without its labels, the sum.
TOLD = {
    "throttled": 'hubbub_gateway_throttles_total{limit="messages"}',
    "disconnects": "hubbub_gateway_bus_disconnects_total",
    "lost": "hubbub_gateway_bus_lost_messages_total",
    "panics": "hubbub_gateway_panics_total",
}


class Load:
    """A hubbub-load in the rooms of a kind, members of each room in turn on both gateways."""

    def __init__(self, deployment, kind, members, rate, seconds, *options):
        self.seconds = seconds
        self.process = Process([
            deployment.binaries / "hubbub-load", *deployment.room_urls(kind), "--rooms", ROOMS[kind][0], "--members", members,
            "--rate", rate, "--warmup", "1s", "--duration", f"{seconds}s", "--origin", ORIGIN, "--json", "-", *options,
        ])
        deployment.processes.append(self.process)  # so that it is stopped with the rest if something goes wrong

    def await_measuring(self):
        self.process.await_line(lambda line: line.startswith("measure"), PATIENCE_S)

    def report(self):
        """What it reports; it is known to end some time after its window, when all that was said has been heard."""
        status = self.process.child.wait(self.seconds + 10 * PATIENCE_S)
        self.process.reader.join()
        if status not in (0, 1):
            raise BenchError("\n".join(self.process.lines[-5:]))
        return json.loads("\n".join(self.process.lines[self.process.lines.index("{"):]))


def churn(deployment, seconds):
    """Members come and go."""
    return record(Load(deployment, "steady", 10, 1, seconds, "--churn", 50).report())


def slow(deployment, seconds):
    """Some never read."""
    load = Load(deployment, "slow", 25, 100, seconds, "--slow", SLOW_PER_ROOM, "--size", 1000)
    return record(load.report(), never_read=SLOW_PER_ROOM * ROOMS["slow"][0])


def drain(deployment, seconds):
    """One gateway sends its members to the other, ends, and is started anew."""
    load = Load(deployment, "steady", 10, 1, seconds, "--reconnect")
    load.await_measuring()
    sent_away = deployment.passing.look()["connections"]
    code = deployment.drain(deployment.passing)
    report = load.report()
    deployment.replace_passing()
    told = report["closes"].get("1012", {"count": 0})["count"]
    return record(report, sent_away=sent_away, told_1012=told, came_back=report["load"]["reconnects"], exit_code=code)


def flood(deployment, seconds):
    """Publishers send half as much again as their room allows them, and others nothing but pings."""
    load = Load(deployment, "flooded", 25, 150, seconds, "--publishers", 5)
    load.await_measuring()
    for number in range(PINGERS):
        flood_with_pings(deployment.both[number % 2].port)
    return record(load.report(), pingers=PINGERS)


def outage(deployment, seconds):
    """NATS is killed, and comes back."""
    # What is lost never comes, so it is not waited for.
    load = Load(deployment, "steady", 10, 1, seconds, "--tail", "2s")
    load.await_measuring()
    deployment.kill_nats()
    time.sleep(AWAY_S)
    deployment.revive_nats()
    back = eventually(lambda: all(gateway.is_connected() for gateway in deployment.both))
    since = time.monotonic()
    running = load.process.child.poll() is None
    report = load.report()
    last = report["load"]["over_time"][-1]["deliveries_per_second"] if report["load"]["over_time"] else 0
    return record(report, back=back, running=running, heard_at_last=last, seconds_back=round(time.monotonic() - since, 1))


# In this order: the gateway that is started anew in the third lives through the rest of the cycle and most of the next. Seconds
# of each in the shortest cycle, and its share of what a cycle is longer.
PHASES = {churn: (16, 0.7), slow: (9, 0), drain: (10, 0), flood: (10, 0.1), outage: (19, 0.2)}
# What they take together, with members that come in and leave.
SHORTEST_CYCLE_S = 75


def run(phase, deployment, cycle, cycle_seconds):
    """Makes a phase, waits until everybody has left, and gives its record with what the gateways counted meanwhile."""
    least, share = PHASES[phase]
    before = {gateway.process.pid: gateway.metrics() for gateway in deployment.both}
    seen = phase(deployment, round(least + share * (cycle_seconds - SHORTEST_CYCLE_S)))
    eventually(lambda: all(gateway.metrics()["hubbub_gateway_connections"] == 0 for gateway in deployment.both))
    counted, ended = dict.fromkeys(TOLD, 0), {}
    for gateway in deployment.both:
        # A gateway that was started in the phase began with nothing; what its predecessor counted went with it.
        earlier, now = before.get(gateway.process.pid, {}), gateway.metrics()
        for name, metric in TOLD.items():
            counted[name] += summed(now, metric) - (summed(earlier, metric) if earlier else 0)
        for metric, value in now.items():
            if metric.startswith(CLOSED) and 'by="gateway"' in metric and value > earlier.get(metric, 0):
                reason = metric.split('reason="')[1].split('"')[0]
                ended[reason] = ended.get(reason, 0) + int(value - earlier.get(metric, 0))
    return {"phase": phase.__name__, "cycle": cycle, **seen, "counted": counted, "ended": ended}


def summed(metrics, name):
    """A counter of that name and those labels, or its sum over all labels if the name has none."""
    values = [value for metric, value in metrics.items() if name in (metric, metric.split("{")[0])]
    if not values:
        raise BenchError(f"the gateway has no metric {name}; mend its name in bench/soak_phases.py")
    return int(sum(values))


def record(report, **seen):
    """What is kept of a load's report, with what else was seen."""
    load, told = report["load"], report["verification"]
    return {
        "seconds": round(load["seconds"], 1), "connected": report["connecting"]["connected"],
        "sent": load["sent"], "unsent": load["unsent"], "deliveries": told["deliveries"],
        "joins": load["joins"], "leaves": load["leaves"], "reconnects": load["reconnects"], "pings": load["pings"],
        "faults": told["faults"], "thrown_out": told["thrown_out"], "unheard": told["unheard"],
        "violations": told["violations"], "failures": report["connecting"]["failures"], "passed": told["passed"],
        "slow_closes": report["slow_closes"], **seen,
    }


def flood_with_pings(port):
    """Enters a room where nothing is said, sends pings until the gateway closes, and answers that."""
    request = (
        f"GET /rooms/bench/pinged-1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {ORIGIN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as peer:
        peer.sendall(request.encode())
        heard = read_until(peer, b"\r\n\r\n")
        if b" 101 " not in heard.split(b"\r\n")[0]:
            raise BenchError(f"who was to flood with pings was not let in: {heard.decode(errors='replace')}")
        # A gateway that has closed may reset what it does not read any more.
        with contextlib.suppress(ConnectionError):
            peer.sendall(PING * PINGS)
            read_until(peer, CLOSE_BEGINS, heard.split(b"\r\n\r\n", 1)[1])
            peer.sendall(CLOSE)
            while peer.recv(4096):
                pass


def read_until(peer, end, heard=b""):
    """What has been heard when `end` is in it, or when there is no more."""
    while end not in heard:
        more = peer.recv(4096)
        if not more:
            break
        heard += more
    return heard
