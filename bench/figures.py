"""The figures of one report, each a function of it; None where it has none. And their medians over the runs of a server."""

from statistics import median

# How the gateway's metric of ended connections calls a member with too much waiting for it.
SLOW = 'reason="queue_full"'

def collapsed(report):
    """Whether the server threw all publishers out, so that the load ended at once: what was counted of it tells nothing."""
    return report["verification"].get("lost_publishers", False)


def rate(report):
    return None if collapsed(report) else report["load"]["deliveries_per_second"]


def cost(report):
    return None if collapsed(report) else report["load"]["server_cpu_s_per_million"]


def latency(quantile):
    def times(report):
        told = report["load"]["latency_ms"]
        return told[quantile] if told["count"] and not collapsed(report) else None

    return times


def cpu(report):
    used = report["load"]["server_cpu"]
    return used and used["user_s"] + used["system_s"]


def per_churn(report):
    joins = report["load"]["joins"]
    return cpu(report) * 1e6 / joins if joins else None


def per_ping(report):
    pings = report["load"]["pings"]
    return cpu(report) * 1e6 / pings if pings else None


def memory(field):
    return lambda report: (report["memory"] or {}).get(field)


def grown(report):
    """Resident memory of the server after load over that with all members idle."""
    seen = report["memory"] or {}
    if not seen.get("after") or not seen.get("connected"):
        return None
    return seen["after"]["rss"] / seen["connected"]["rss"]


def handshake(quantile):
    return lambda report: report["connecting"]["handshake_ms"][quantile]


def refused(report):
    return sum(report["connecting"]["failures"].values())


def lost(report):
    """Members thrown out or never let in, which a good run has none of."""
    return report["verification"]["thrown_out"] + refused(report)


def faults(report):
    return sum(report["verification"]["faults"].values())


def closes(code):
    return lambda report: report["closes"].get(str(code), {"count": 0})["count"]


def drain_spread(field):
    return lambda report: report["closes"].get("1012", {}).get(field)


def drain_seconds(report):
    spread = report["closes"].get("1012")
    return spread and spread["last_s"] - spread["first_s"]


def watched(field):
    return lambda report: report.get("watched", {}).get(field)


def connecting(field):
    return lambda report: report["connecting"][field]


def judged_slow(report):
    """Members that never read and that the gateway says it closed for being slow, with 1013: all it closed so, less
    those that did read and were thrown out. A peer without such a metric says nothing."""
    ended = report.get("server_ended")
    if not ended:
        return None
    judged = sum(count for labels, count in ended.items() if SLOW in labels)
    return judged - report["verification"]["thrown_out"]


def slow_closed(code):
    return lambda report: report["slow_closes"].get(str(code), 0)



class Results:
    """What was measured, by scenario and server."""

    def __init__(self, results):
        self.all = results
        self.scenarios = results["scenarios"]

    def runs(self, scenario, server):
        return self.scenarios.get(scenario, {}).get(server, [])

    def median(self, scenario, server, figure):
        values = [figure(report) for report in self.runs(scenario, server)]
        values = [value for value in values if value is not None]
        return median(values) if values else None

    def worst(self, scenario, server, figure):
        values = [figure(report) for report in self.runs(scenario, server)]
        values = [value for value in values if value is not None]
        return max(values) if values else None

    def ratio(self, scenario, figure, to, of="ours"):
        ours, theirs = self.median(scenario, of, figure), self.median(scenario, to, figure)
        return ours / theirs if ours is not None and theirs else None

    def pairs(self, scenario, figure, to, of="ours"):
        """The same ratio for each two runs that took turns."""
        both = zip(self.runs(scenario, of), self.runs(scenario, to))
        values = [(figure(ours), figure(theirs)) for ours, theirs in both]
        return [ours / theirs for ours, theirs in values if ours is not None and theirs]
