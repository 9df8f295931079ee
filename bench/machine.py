"""The machine that measures, and the versions of what is measured on it."""

import os
import platform
import subprocess

from peers import SERVERS
from servers import ROOT


def version(*command):
    """What the command prints, run in the project's root."""
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    except OSError:
        return "not installed"


def commit():
    """The commit whose text is here, marked where files differ from it: what is measured must be found again."""
    return version("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12")


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    peers = sorted({text for server in SERVERS.values() if (text := server.version())})
    return {
        "cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory), "kernel": platform.release(),
        "versions": [version("rustc", "--version"), version("go", "version"), *peers],
    }
