"""Runs the Autobahn testsuite (RFC 6455) against a gateway's room, and judges its report.

    python3 scripts/conformance --gateway target/debug/hubbub-gateway --wstest "$(scripts/autobahn)" \\
        --nats-server "$(scripts/nats-server)" core core-nats limits

Runs: core (all but limits and compression, through the in-process bus), core-nats (the same through NATS), limits (messages
of up to 16 MiB; NATS carries 1 MiB), selftest (core against the suite's own echo server: shows that the set-up works).
The report for a person is index.html in the folder of each run. The last line is 'N passed, N failed'.
Exit code: 0 if all passed, 1 if a case failed, 2 if the run could not be set up.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys
import time

import report
import servers

ROOMS = pathlib.Path(__file__).with_name("rooms.yaml")
GIVE_UP_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Run:
    """Which cases, in which room, over which bus."""

    what: str
    room: str
    cases: tuple[str, ...]
    excluded: tuple[str, ...]
    expected: int
    nats: bool = False
    max_non_strict: int = 10
    codes_due: bool = True


CORE = Run("core, in-process bus", "core", ("*",), ("9.*", "12.*", "13.*"), 247)
RUNS = {
    "core": CORE,
    "core-nats": dataclasses.replace(CORE, what="core, through NATS", nats=True),
    "limits": Run("limits, in-process bus", "limits", ("9.*",), (), 54),
    "selftest": dataclasses.replace(
        CORE, what="core, against the suite's own echo server", max_non_strict=247, codes_due=False
    ),
}


def main() -> int:
    arguments = parse()
    passed = failed = 0
    for name in arguments.runs:
        folder = arguments.output / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"Autobahn: {RUNS[name].what}", flush=True)
        try:
            verdict = conduct(name, folder, arguments)
        except servers.SetupError as error:
            print(f"conformance: {error}", file=sys.stderr)
            return 2
        passed += verdict.passed
        failed += verdict.failed
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", choices=sorted(RUNS), metavar="RUN", help=", ".join(RUNS))
    parser.add_argument("--wstest", type=program, required=True, help="the suite (scripts/autobahn prints it)")
    parser.add_argument("--gateway", type=program, help="the gateway to test; every run but selftest needs it")
    parser.add_argument("--nats-server", type=program, help="for core-nats (scripts/nats-server prints it)")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("conformance-report"), help="folder for reports")
    arguments = parser.parse_args()
    arguments.output = arguments.output.resolve()
    if arguments.gateway is None and set(arguments.runs) != {"selftest"}:
        parser.error("--gateway is needed: build one with 'cargo build -p hubbub-gateway'")
    if arguments.nats_server is None and any(RUNS[name].nats for name in arguments.runs):
        parser.error("--nats-server is needed for a run through NATS: scripts/nats-server prints one")
    return arguments


def program(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"'{text}' is not a program")
    return path.resolve()


def conduct(name: str, folder: pathlib.Path, arguments: argparse.Namespace) -> report.Verdict:
    """Starts what the run needs, lets the suite loose, and prints its verdict."""
    run = RUNS[name]
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        if name == "selftest":
            url = stack.enter_context(servers.autobahn_echo(arguments.wstest, folder))
        else:
            nats = stack.enter_context(servers.nats_server(arguments.nats_server, folder)) if run.nats else None
            base = stack.enter_context(servers.gateway(arguments.gateway, ROOMS, nats, folder))
            url = f"{base}/rooms/conformance/{run.room}"
        fuzz(arguments.wstest, run, url, folder)
    verdict = report.judge(report.read(folder), run.expected, run.max_non_strict, run.codes_due)
    print(report.summary(verdict))
    print(f"  {verdict.cases} cases in {time.monotonic() - start:.0f} s; for a person: {folder}/index.html", flush=True)
    return verdict


def fuzz(wstest: pathlib.Path, run: Run, url: str, folder: pathlib.Path) -> None:
    """Runs the suite's client. What it did not do in time shows as cases that did not run."""
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "outdir": str(folder),
                "servers": [{"agent": "hubbub", "url": url}],
                "cases": list(run.cases),
                "exclude-cases": list(run.excluded),
                "exclude-agent-cases": {},
            }
        ),
        encoding="utf-8",
    )
    log = folder / "wstest.log"
    with servers.running([str(wstest), "-m", "fuzzingclient", "-s", str(spec)], log) as client:
        try:
            client.wait(timeout=GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"  gave up after {GIVE_UP_SECONDS} s, see {log}")


if __name__ == "__main__":
    sys.exit(main())
