"""What the gateway is compared with: the bare write loop, and what one would write or run instead of it.

Peers come from their public packages at the versions that their own lock files pin (bench/peers)."""

import json
import re
import socket
import subprocess
import tempfile
import tomllib
from pathlib import Path

from servers import ORIGIN, ROOT, BenchError, Ours, OursOverNats, OursTraced, OursTwice, Server, port, run, script

PEERS = ROOT / "bench/peers"
LEAVE_OUT = "; install it, or leave this server out by --servers"


def go_version(folder, module):
    text = (PEERS / folder / "go.mod").read_text()
    return re.search(rf"{re.escape(module)} v(\S+)", text).group(1)


class Floor(Server):
    name, title, collect = "floor", "bare write loop", 0

    def start(self, scenario):
        process = self.begin(self.binaries / "hubbub-floor", "--collect", self.collect)
        self.ports = [process.await_line(port)]


class Floor5(Floor):
    name, title, collect = "floor5", "bare write loop, collecting 5 ms", 5


class FloorTwice(Server):
    """Two of them that pass every message on to each other, without a broker between them: what a second server costs at the least."""

    name, title = "floor2", "two bare write loops"

    def start(self, scenario):
        command = [self.binaries / "hubbub-floor", "--addr", "127.0.0.1:0"]
        first = self.begin(*command, "--relay-listen", "127.0.0.1:0")
        relay = first.await_line(lambda line: line.startswith("relay on") and port(line))
        second = self.begin(*command, "--relay", f"127.0.0.1:{relay}")
        self.ports = [each.await_line(lambda line: line.startswith("listening on") and port(line)) for each in (first, second)]


class Gorilla(Server):
    name, title = "gorilla", "gorilla hub"

    @classmethod
    def build(cls, target):
        run("go", "build", "-o", target / "release/gorilla-peer", ".", where=PEERS / "gorilla", hint=LEAVE_OUT)

    @staticmethod
    def version():
        return f"gorilla/websocket {go_version('gorilla', 'github.com/gorilla/websocket')}"

    def start(self, scenario):
        command = [self.binaries / "gorilla-peer", "-addr", "127.0.0.1:0", "-origins", ORIGIN]
        command += ["-pong-wait", f"{scenario.pong_wait}s"]
        self.ports = [self.begin(*command).await_line(port)]


class Axum(Server):
    name, title, options = "axum", "axum", ()

    @classmethod
    def build(cls, target):
        run("cargo", "build", "--release", "--locked", "--target-dir", target / "bench/axum", where=PEERS / "axum")

    @staticmethod
    def version():
        packages = tomllib.loads((PEERS / "axum/Cargo.lock").read_text())["package"]
        return "axum " + next(package["version"] for package in packages if package["name"] == "axum")

    def start(self, scenario):
        command = [self.binaries.parent / "bench/axum/release/axum-peer", "--origin", ORIGIN]
        command += ["--pong-wait", scenario.pong_wait, *self.options]
        self.ports = [self.begin(*command).await_line(port)]


class Axum4k(Axum):
    name, title, options = "axum-4k", "axum, 4 KiB read buffer", ("--read-buffer", "4096")


class NodeWs(Server):
    name, title = "ws", "Node.js ws"

    @classmethod
    def build(cls, target):
        run("npm", "ci", "--silent", "--no-fund", "--no-audit", where=PEERS / "ws", hint=LEAVE_OUT)

    @staticmethod
    def version():
        lock = json.loads((PEERS / "ws/package-lock.json").read_text())
        try:
            node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout.strip()
        except OSError:
            node = "not installed"
        return f"ws {lock['packages']['node_modules/ws']['version']} on Node.js {node.lstrip('v')}"

    def start(self, scenario):
        command = ["node", PEERS / "ws/main.js", "--origin", ORIGIN, "--pong-wait", scenario.pong_wait]
        self.ports = [self.begin(*command).await_line(port)]


class Nats(Server):
    """NATS's own WebSocket listener: rooms are subjects."""

    name, title, speech = "nats", "NATS's WebSocket listener", ("--protocol", "nats")

    @classmethod
    def build(cls, target):
        script("nats-server")

    @staticmethod
    def version():
        return subprocess.run([script("nats-server"), "--version"], capture_output=True, text=True).stdout.strip()

    def url(self, number, path="/"):
        return super().url(number, path)

    def start(self, scenario):
        self.scratch = tempfile.TemporaryDirectory(prefix="hubbub-bench-")
        config = Path(self.scratch.name) / "nats.conf"
        config.write_text(
            "listen: '127.0.0.1:-1'\nmax_connections: 100000\n"
            f"ping_interval: '{max(1, scenario.pong_wait * 9 // 10)}s'\n"
            f"websocket {{ listen: '127.0.0.1:-1', no_tls: true, allowed_origins: ['{ORIGIN}'] }}\n"
        )
        process = self.begin(script("nats-server"), "--config", config)
        self.ports = [process.await_line(lambda line: "Listening for websocket clients" in line and port(line))]

    def stop(self):
        super().stop()
        if hasattr(self, "scratch"):
            self.scratch.cleanup()


class Centrifugo(Server):
    name, title, speech = "centrifugo", "Centrifugo", ("--protocol", "centrifugo")

    @classmethod
    def build(cls, target):
        script("centrifugo")

    @staticmethod
    def version():
        return f"Centrifugo {go_version('centrifugo', 'github.com/centrifugal/centrifugo/v6')}, unless one was there before"

    def url(self, number, path="/connection/websocket"):
        return super().url(number, path)

    def start(self, scenario):
        self.scratch = tempfile.TemporaryDirectory(prefix="hubbub-bench-")
        config = Path(self.scratch.name) / "centrifugo.json"
        for _ in range(10):
            # It takes no port 0, so another process may come first, and then the next port is tried.
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                number = free.getsockname()[1]
            config.write_text(json.dumps(self.configuration(number, scenario)))
            process = self.begin(script("centrifugo"), "--config", config)
            try:
                process.await_line(lambda line: "serving websocket" in line)
                await_listener(number, process)
            except BenchError:
                self.processes.remove(process)
                process.stop()
                continue
            self.ports = [number]
            return
        raise BenchError("Centrifugo did not start:\n" + "\n".join(process.lines[-20:]))

    @staticmethod
    def configuration(number, scenario):
        ping = max(1, scenario.pong_wait * 9 // 10)
        return {
            "http_server": {"address": "127.0.0.1", "port": str(number)},
            "log": {"level": "info"},
            "client": {
                "allowed_origins": [ORIGIN], "allow_anonymous_connect_without_token": True,
                "ping_interval": f"{ping}s", "pong_timeout": f"{min(8, ping / 2)}s",
            },
            "channel": {"without_namespace": {
                "allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True,
                "allow_publish_for_client": True, "allow_publish_for_anonymous": True,
            }},
        }

    def stop(self):
        super().stop()
        if hasattr(self, "scratch"):
            self.scratch.cleanup()


def await_listener(number, process):
    """Centrifugo says that it serves before it does."""
    while process.child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                return
    raise BenchError("it ended")


def apart(base):
    """The server, and beside it another process of the same, which has the room that is flooded."""

    class Apart(base):
        name, title = f"{base.name}-apart", f"{base.title}, the flood on another"

        def start(self, scenario):
            self.other = base(self.binaries)
            self.other.start(scenario)
            super().start(scenario)

        @property
        def flood_urls(self):
            return self.other.flood_urls

        def stop(self):
            super().stop()
            if hasattr(self, "other"):
                self.other.stop()

    return Apart


SERVERS = {server.name: server for server in (
    Ours, OursTraced, OursOverNats, OursTwice, Floor, FloorTwice, Floor5, Gorilla, Axum, Axum4k, Centrifugo, Nats, NodeWs,
    apart(Ours), apart(Gorilla), apart(Axum4k),
)}
