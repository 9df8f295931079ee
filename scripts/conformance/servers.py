"""Starts the servers of a run on free ports, waits until they serve, and ends just these.

Each writes its output to a file in the run's folder, so that it can be read afterwards.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TypeVar

GIVE_UP_SECONDS = 60
LOOPBACK = "127.0.0.1"

T = TypeVar("T")


class SetupError(Exception):
    """A server could not be started; the text says what to look at."""


@contextlib.contextmanager
def running(command: list[str], log: pathlib.Path) -> Iterator[subprocess.Popen]:
    """Runs a command until the end of the block, then ends it."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(what: str, probe: Callable[[], T | None], process: subprocess.Popen, log: pathlib.Path) -> T:
    """Asks `probe` until it answers with more than None, for as long as the process lives."""
    give_up = time.monotonic() + GIVE_UP_SECONDS
    fault = f"no sign of it within {GIVE_UP_SECONDS} s"
    while time.monotonic() < give_up:
        answer = probe()
        if answer is not None:
            return answer
        if process.poll() is not None:
            fault = f"the process ended with code {process.returncode}"
            break
        time.sleep(0.02)
    output = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
    raise SetupError("\n".join([f"waited in vain for {what}: {fault}; the end of {log}:", *output]))


@contextlib.contextmanager
def nats_server(program: pathlib.Path, folder: pathlib.Path) -> Iterator[str]:
    """A nats-server on a free port; gives its address."""
    log = folder / "nats-server.log"
    command = [str(program), "--addr", LOOPBACK, "--port", "-1", "--ports_file_dir", str(folder)]
    with running(command, log) as process:
        ports = folder / f"{program.name}_{process.pid}.ports"

        def address() -> str | None:
            try:
                return json.loads(ports.read_text(encoding="utf-8"))["nats"][0]
            except (FileNotFoundError, json.JSONDecodeError):
                return None

        yield wait_for("nats-server", address, process, log)


@contextlib.contextmanager
def gateway(program: pathlib.Path, rooms: pathlib.Path, nats: str | None, folder: pathlib.Path) -> Iterator[str]:
    """A gateway on free ports that says it is ready; gives the address of its public listener, such as ws://127.0.0.1:4711."""
    log = folder / "gateway.log"
    command = [str(program), "--listen", f"{LOOPBACK}:0", "--admin-listen", f"{LOOPBACK}:0", "--rooms", str(rooms)]
    command += ["--log-format", "json"]
    if nats:
        command += ["--nats", nats]
    with running(command, log) as process:

        def listeners() -> tuple[str, str] | None:
            return addresses(log.read_text(encoding="utf-8", errors="replace"))

        public, admin = wait_for("the gateway's addresses", listeners, process, log)
        wait_for("the gateway's readiness", lambda: is_ready(admin), process, log)
        yield f"ws://{public}"


def addresses(output: str) -> tuple[str, str] | None:
    """The public and the admin address that a gateway tells in its log once it serves."""
    found = dict(re.findall(r'"(listen|admin)":"([^"]+)"', output))
    return (found["listen"], found["admin"]) if len(found) == 2 else None


def is_ready(admin: str) -> bool | None:
    try:
        with urllib.request.urlopen(f"http://{admin}/readyz", timeout=5) as answer:
            return True if answer.status == 200 else None
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


@contextlib.contextmanager
def autobahn_echo(wstest: pathlib.Path, folder: pathlib.Path) -> Iterator[str]:
    """The suite's own echo server, which shows that the suite is set up right."""
    log = folder / "echo.log"
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    with running([str(wstest), "-m", "echoserver", "-w", f"ws://{LOOPBACK}:{port}", "-u", "0"], log) as process:

        def listens() -> bool | None:
            try:
                socket.create_connection((LOOPBACK, port), timeout=5).close()
                return True
            except OSError:
                return None

        wait_for("the suite's echo server", listens, process, log)
        yield f"ws://{LOOPBACK}:{port}"
