"""What must hold after a soak: a sentence for each thing that does not. Pure functions over what was seen."""

from soak_gateways import COUNTS

MIB = 1 << 20
# What memory may grow by, in bytes per ten minutes. In these some 20,000 connections come and go, half of them on each gateway, so it is
# 100 bytes for each, where the state of a member is about 300: not one in two may be forgotten. A gateway that gained as much all the
# time would have 144 MiB more after a day.
GROWTH_PER_10_MIN = MIB
# Growth in all that tells nothing, in bytes: buffers come to the size that they need at most in steps of up to 0.7 MiB, of which a soak of five
# minutes has seen one at its end (0.8 MiB by least squares over its quiet moments). Twice that, and some more.
GRAIN = 2 * MIB
# Quiet moments that a slope is fitted through at least, the first one of a gateway's life left out: until then it uses everything for
# the first time.
LEAST_QUIETS = 2

# Which ends of connections a phase is for; any other end by a gateway is a member thrown out.
WANTED_ENDS = {"slow": ("queue_full", "write_timeout"), "flood": ("control_flood",)}
# In an outage of NATS what is said is lost, and told; everywhere else each message comes once, in order and unchanged.
MAY_LOSE = ("outage",)
# Publishers that are on their way to the other gateway do not send.
MAY_NOT_SEND = ("drain", "outage")


def slope(points):
    """Least squares through (seconds, bytes), in bytes a second; 0 where all are at the same time."""
    mean_time = sum(time for time, _ in points) / len(points)
    mean_size = sum(size for _, size in points) / len(points)
    spread = sum((time - mean_time) ** 2 for time, _ in points)
    return sum((time - mean_time) * (size - mean_size) for time, size in points) / spread if spread else 0.0


def growth(quiet):
    """How the resident memory of a gateway grows from quiet moment to quiet moment after its first: bytes per ten minutes, and
    bytes over all of them. None if there are too few."""
    points = [(moment["at"], moment["rss"]) for moment in quiet[1:]]
    if len(points) < LEAST_QUIETS:
        return None
    per_second = slope(points)
    return per_second * 600, per_second * (points[-1][0] - points[0][0])


def of_memory(name, quiet):
    grown = growth(quiet)
    if grown is None:
        yield f"the {name} gateway: {len(quiet)} quiet moments tell nothing of its memory; soak longer"
    elif grown[0] > GROWTH_PER_10_MIN and grown[1] > GRAIN:
        yield (f"the {name} gateway: its memory grows by {grown[0] / MIB:.2f} MiB in ten minutes, "
               f"{grown[1] / MIB:.2f} MiB in all; at most {GROWTH_PER_10_MIN / MIB:.0f} MiB in ten minutes is owed")


def of_counts(gateway):
    for moment in gateway["quiet"]:
        for count, what in COUNTS.items():
            if moment[count] != gateway["before"][count]:
                yield (f"the {gateway['name']} gateway, cycle {moment['cycle']}: {moment[count]} {what} when everybody had left, "
                       f"{gateway['before'][count]} before they came")


def of_phase(record):
    """What was seen in one phase and must not have been."""
    where, told = f"{record['phase']}, cycle {record['cycle']}", []
    kind, counted, ended = record["phase"], record["counted"], record["ended"]
    if record["thrown_out"]:
        told.append(f"{record['thrown_out']} members were thrown out")
    for reason, count in ended.items():
        if reason not in WANTED_ENDS.get(kind, ()):
            told.append(f"gateways ended {count} connections: {reason}")
    told += [f"{count} × {reason}" for reason, count in record["failures"].items()]
    told += [f"{count} × violation of the protocol: {what}" for what, count in record["violations"].items()]
    if record["unheard"]:
        told.append(f"{record['unheard']} members never heard a publisher's probe")
    if counted["panics"]:
        told.append(f"{counted['panics']} faults in a gateway")
    if kind not in MAY_LOSE:
        told += [f"{count} deliveries {fault}" for fault, count in record["faults"].items() if count]
    if record["unsent"] and kind not in MAY_NOT_SEND:
        told.append(f"{record['unsent']} messages could not be sent")
    if not record["deliveries"]:
        told.append("nothing was delivered")
    if kind in DEEDS:
        told += DEEDS[kind](record, counted, ended)
    return [f"{where}: {sentence}" for sentence in told]


def of_churn(record, counted, ended):
    if not (record["joins"] and record["leaves"]):
        yield "nobody came or went"


def of_slow(record, counted, ended):
    cut = sum(ended.get(reason, 0) for reason in WANTED_ENDS["slow"])
    if cut != record["never_read"]:
        yield f"{cut} members were cut for being slow, and {record['never_read']} never read"


def of_drain(record, counted, ended):
    there = record["sent_away"]
    if not there:
        yield "the gateway that was drained had no members"
    if record["told_1012"] != there:
        yield f"{record['told_1012']} of {there} members were sent away with 1012"
    if record["came_back"] != there:
        yield f"{record['came_back']} of {there} members came back"
    if record["exit_code"] is None:
        yield "the drained gateway did not end"
    elif record["exit_code"]:
        yield f"the drained gateway ended with exit code {record['exit_code']}"


def of_flood(record, counted, ended):
    if not counted["throttled"]:
        yield "nobody was held back for sending too much"
    if ended.get("control_flood", 0) != record["pingers"]:
        yield f"{ended.get('control_flood', 0)} members were closed for flooding with pings, and {record['pingers']} did"


def of_outage(record, counted, ended):
    if not counted["disconnects"]:
        yield "no gateway noticed that NATS was away"
    if not record["back"]:
        yield "gateways did not connect to NATS again"
    elif record["running"] and record["seconds_back"] > SURELY_HEARD_S and not record["heard_at_last"]:
        yield f"nothing was heard although NATS had been back for {record['seconds_back']} s"


DEEDS = {"churn": of_churn, "slow": of_slow, "drain": of_drain, "flood": of_flood, "outage": of_outage}
# From the return of NATS to the end of the load: its tail is 2 s, and gateways await each other for two seconds before they go on.
SURELY_HEARD_S = 7


def judge(seen):
    """A sentence for each thing that does not hold; none when all does. `seen` is what bench/soak writes down."""
    complaints = []
    for gateway in seen["gateways"]:
        complaints += of_counts(gateway)
    complaints += of_memory("staying", next(gateway["quiet"] for gateway in seen["gateways"] if gateway["name"] == "staying"))
    for record in seen["phases"]:
        complaints += of_phase(record)
    return complaints
