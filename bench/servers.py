"""The servers that are measured: each is started afresh for every run, on a free port, and stopped after it.

Here is what they have in common, and the gateway; peers.py has what it is compared with."""

import functools
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = "https://chat.example.com"
ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")
ADMIN = re.compile(r"\badmin\W+127\.0\.0\.1:(\d+)")
ENDED = re.compile(r'^hubbub_gateway_connections_closed_total\{(.*)\} (\d+)$', re.MULTILINE)
LISTEN = re.compile(r"\blisten\W+127\.0\.0\.1:(\d+)")
START_LIMIT_S = 30

ROOM = """\
apiVersion: hubbub.dev/v1alpha1
kind: ChatRoom
metadata: {{name: {name}, namespace: bench}}
spec:
  allowedOrigins: ["{origin}"]
  limits: {{sendQueue: 256, {limits}}}
  heartbeat: {{{heartbeat}, writeWait: 10s}}
"""
# Messages a second of one member that no load here comes near.
NO_LIMIT = 100000


OTLP = re.compile(r'"endpoint": ?"(127\.0\.0\.1:\d+)"')

# Everything in memory, on free ports.
JAEGER = """\
service:
  extensions: [jaeger_storage]
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}
  telemetry: {metrics: {level: none}, logs: {level: info, encoding: json}}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 10000}}}}
receivers:
  otlp: {protocols: {grpc: {endpoint: '127.0.0.1:0'}}}
processors:
  batch: {}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
"""


# The room that a scenario floods; peers make it when somebody comes.
FLOODED_PATH = "/rooms/bench/flooded"


class BenchError(Exception):
    """Something the person at the keyboard can mend; the text says how."""


class Process:
    """A child process whose output is kept, so that its address can be found and its complaints shown."""

    def __init__(self, command, variables=None):
        self.command = [str(word) for word in command]
        self.lines = []
        self.grown = threading.Condition()
        self.child = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, **(variables or {})},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    @property
    def pid(self):
        return self.child.pid

    def _read(self):
        for line in self.child.stdout:
            with self.grown:
                self.lines.append(line.rstrip())
                self.grown.notify_all()
        with self.grown:
            self.grown.notify_all()

    def await_line(self, find, limit=START_LIMIT_S):
        """The first true value that `find` gives for a line of output."""
        deadline = time.monotonic() + limit
        seen = 0
        with self.grown:
            while True:
                for line in self.lines[seen:]:
                    found = find(line)
                    if found:
                        return found
                seen = len(self.lines)
                left = deadline - time.monotonic()
                if left <= 0 or (self.child.poll() is not None and not self.reader.is_alive()):
                    output = "\n".join(self.lines[-20:])
                    raise BenchError(f"`{' '.join(self.command)}` did not start:\n{output}")
                self.grown.wait(min(left, 1))

    def stop(self, limit=10):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(limit)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode


def run(*command, where=ROOT, hint=""):
    """Builds something; says what is missing instead of how it failed to start."""
    try:
        subprocess.run([str(word) for word in command], cwd=where, check=True)
    except FileNotFoundError as error:
        raise BenchError(f"{command[0]} is missing{hint}") from error


@functools.cache
def script(name):
    """The path of a program, as the script of its name prints it: one that is there, or one that is built once."""
    done = subprocess.run([ROOT / "scripts" / name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise BenchError(f"scripts/{name} could not give a {name}; leave its servers out by --servers")
    return done.stdout.strip()


def port(line):
    match = ADDRESS.search(line)
    return match and int(match.group(1))


class Server:
    """What all have in common. `start` sets `ports` (public ones) and `pids` (those whose cost counts)."""

    name = title = None

    # What hubbub-load has to be told to speak with it.
    speech = ()
    # Its packages of this workspace; they are built all at once.
    packages = ()

    def __init__(self, binaries):
        self.binaries = binaries
        self.processes = []
        self.ports = []

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    def url(self, number, path="/rooms/bench/room-{room}"):
        return f"ws://127.0.0.1:{number}{path}"

    @property
    def urls(self):
        return [self.url(number) for number in self.ports]

    @property
    def flood_urls(self):
        """Where the room is that a scenario floods beside those that it measures: here, in the same process."""
        return [self.url(number, FLOODED_PATH) for number in self.ports]

    @classmethod
    def build(cls, target):
        """Builds what else `start` starts, where it finds it."""

    @staticmethod
    def version():
        """What it is called in the list of versions, if it is not ours."""

    def ended(self):
        """Nothing is known of the ends of connections, but for what the members see."""
        return {}

    def begin(self, *command, variables=None):
        process = Process(command, variables)
        self.processes.append(process)
        return process

    def stop(self):
        for process in self.processes:
            # The drain of a gateway is a scenario of its own; elsewhere nobody is left to be told.
            process.stop(limit=2)


class Ours(Server):
    name, title, gateways = "ours", "hubbub-gateway", 1

    packages = ("hubbub-gateway",)

    def start(self, scenario):
        self.admins = []
        self.scratch = tempfile.TemporaryDirectory(prefix="hubbub-bench-")
        rooms = Path(self.scratch.name) / "rooms.yaml"
        rooms.write_text("---\n".join(self.declare(scenario)))
        self.flags, self.variables = ["--rooms", rooms, *self.start_bus()], self.start_collector()
        for number in range(self.gateways):
            _, listen, admin = self.start_gateway(f"bench-{number}")
            self.ports.append(listen)
            self.admins.append(admin)

    def declare(self, scenario):
        """The rooms, each a document of YAML."""
        ping_period = max(1, scenario.pong_wait * 9 // 10)

        def room(name, per_second=NO_LIMIT, burst=NO_LIMIT):
            return ROOM.format(
                name=name, origin=ORIGIN, heartbeat=f"pongWait: {scenario.pong_wait}s, pingPeriod: {ping_period}s",
                limits=f"maxConnections: 50000, maxMessageBytes: 512, messagesPerSecond: {per_second}, burst: {burst}",
            )

        yield from (room(f"room-{number}") for number in range(1, scenario.rooms + 1))
        if scenario.flood and scenario.flood.limit:
            yield room("flooded", scenario.flood.limit, 2 * scenario.flood.limit)
        elif scenario.flood:
            yield room("flooded")

    def start_gateway(self, name, *flags):
        """One more gateway of that id: its process, its public port and its admin port."""
        process = self.begin(
            self.binaries / "hubbub-gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
            "--gateway-id", name, *self.flags, *flags, variables=self.variables,
        )
        listen = process.await_line(public_port)
        return process, listen, int(process.await_line(lambda line: LISTEN.search(line) and ADMIN.search(line)).group(1))

    def ended(self):
        """Connections that the gateway ended, by the labels of its own metric: a member that never reads cannot see
        its close frame, which stands behind what it has not read."""
        ended = {}
        for admin in self.admins:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
                for labels, count in ENDED.findall(answer.read().decode()):
                    if count != "0":  # every reason is told from the start
                        ended[labels] = ended.get(labels, 0) + int(count)
        return ended

    def start_bus(self):
        return []

    def start_collector(self):
        return {}

    def stop(self):
        super().stop()
        if hasattr(self, "scratch"):
            self.scratch.cleanup()


class OursTraced(Ours):
    """One gateway that traces one of a hundred messages to a real Jaeger, whose own time is not counted."""

    name, title = "ours-traced", "the same, traced"
    jaeger = None

    @classmethod
    def build(cls, target):
        script("jaeger")

    def start_collector(self):
        binary = script("jaeger")
        config = Path(self.scratch.name) / "jaeger.yaml"
        config.write_text(JAEGER)
        self.jaeger = Process([binary, "--config", config])
        endpoint = self.jaeger.await_line(lambda line: "Starting GRPC server" in line and OTLP.search(line)).group(1)
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}", "OTEL_TRACES_SAMPLER_ARG": "0.01"}

    def stop(self):
        super().stop()
        if self.jaeger:
            self.jaeger.child.kill()  # it keeps nothing
            self.jaeger.child.wait()


class OursOverNats(Ours):
    """One gateway through NATS. The NATS server's own time is not counted: it is not ours."""

    name, title = "ours-nats", "hubbub-gateway and NATS"
    nats = None

    @classmethod
    def build(cls, target):
        script("nats-server")

    def start_bus(self):
        return ["--nats", f"nats://127.0.0.1:{self.start_nats()}"]

    def start_nats(self, number=-1):
        """Starts it on that port, or on a free one, and gives the port."""
        self.nats = Process([script("nats-server"), "--addr", "127.0.0.1", "--port", number])
        return self.nats.await_line(lambda line: "client connections on" in line and port(line))

    def stop(self):
        super().stop()
        if self.nats:
            self.nats.stop()


class OursTwice(OursOverNats):
    """Two gateways through NATS."""

    name, title, gateways = "ours2", "two hubbub-gateways and NATS", 2


def public_port(line):
    """The gateway's log line that says it serves names both its addresses."""
    match = LISTEN.search(line)
    return match and int(match.group(1))
