"""Judges a cluster: what makes engines slow, turns lost or upgrades fail, and what to do about it. Pure."""

from collections.abc import Callable, Iterable, Iterator

from deploy.local.doctor import GIB, Check, Verdict
from deploy.survey.facts import NodeFacts, StoreFacts, Survey

SHM_FAIL = 256 << 20  # a container's 64 MiB starve the shards' ring buffers
SHM_WARN = 2 * GIB
SKEW_WARN, SKEW_FAIL = 1.0, 30.0  # seconds
MEMORY_WARN = 0.8
SLOW = {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}
FULL = 1.0


def examine(survey: Survey) -> list[Check]:
    """One check per property; the worst node of each is named."""
    checks = [Check(part, "fail", why, ADVICE_AWAY[part]) for part, why in survey.away.items()]
    if survey.nodes:
        checks += [
            ray_nodes(survey.nodes),
            versions(survey.nodes),
            gpus(survey.nodes),
            nccl(survey.nodes),
            shared_memory(survey.nodes),
            niceness(survey.nodes),
        ]
    if survey.stores:
        checks += [*store(survey.stores)]
    clocks = [(each.address, each.skew, each.skew_error) for each in survey.nodes]
    clocks += [(each.server, each.skew, each.skew_error) for each in survey.stores]
    return [*checks, skew(clocks)] if clocks else checks


ADVICE_AWAY = {
    "ray": "run this in a pod or container of the cluster, or set RAY_ADDRESS and Ray's token",
    "store": "set HEADRACE_REDIS_URL as the gateways have it",
}


def ray_nodes(nodes: Iterable[NodeFacts]) -> Check:
    listed = list(nodes)
    workers = [node for node in listed if not node.head]
    found = f"{len(listed)} nodes, {len(workers)} of them workers"
    if listed and not any(node.head for node in listed):
        return Check("ray", "fail", f"{found}; no head", "see the head's log: it is not part of its cluster")
    return Check("ray", "ok", found)


def versions(nodes: Iterable[NodeFacts]) -> Check:
    """Ray refuses another Ray or another minor version of Python; shards of two vLLMs do not understand each other."""
    listed = list(nodes)
    told: dict[str, dict[str, list[str]]] = {}
    for node in listed:
        mine = {**node.packages, "python": ".".join(node.python.split(".")[:2])}
        for name, version in mine.items():
            told.setdefault(name, {}).setdefault(version, []).append(node.address)
    mixed = {name: found for name, found in told.items() if len(found) > 1}
    if mixed:
        name, found = next(iter(sorted(mixed.items())))
        each = ", ".join(f"{version} on {places[0]}" for version, places in sorted(found.items()))
        return Check("versions", "fail", f"{name}: {each}", "run one image on all nodes of a Ray cluster")
    return Check("versions", "ok", ", ".join(f"{name} {next(iter(found))}" for name, found in told.items()))


def gpus(nodes: Iterable[NodeFacts]) -> Check:
    listed = list(nodes)
    for node in listed:
        if len(node.gpus) != node.ray_gpus:
            found = f"{node.address}: the driver sees {len(node.gpus)}, Ray hands out {node.ray_gpus:g}"
            return Check(
                "gpus", "fail", found, "ask for as many nvidia.com/gpu as num-gpus says, and vice versa"
            )
    kinds = sorted({name for node in listed for name in node.gpus})
    drivers = sorted({driver for node in listed for driver in node.drivers})
    total = sum(len(node.gpus) for node in listed)
    if len(drivers) > 1:
        return Check("gpus", "warn", f"drivers {', '.join(drivers)}", "give all GPU nodes one driver version")
    if len(kinds) > 1:
        return Check(
            "gpus", "warn", ", ".join(kinds), "one replica must not span kinds: select nodes by gpu.kind"
        )
    return Check("gpus", "ok", f"{total} x {kinds[0]}, driver {drivers[0]}" if kinds else "none")


def nccl(nodes: Iterable[NodeFacts]) -> Check:
    workers = [node for node in nodes if not node.head]
    for node in workers:
        for name, value in node.environment.items():
            if SLOW.get(name) == value:
                found = f"{name}={value} on {node.address}"
                return Check("nccl", "warn", found, "unset it: shards fall back to a slower path")
            if name.endswith("SOCKET_IFNAME") and (lacks := missing(value, node.interfaces)):
                found = f"{name} names {lacks}, which {node.address} does not have"
                return Check("nccl", "fail", found, f"choose among {', '.join(sorted(node.interfaces))}")
    if len({tuple(sorted(node.environment.items())) for node in workers}) > 1:
        return Check("nccl", "fail", "nodes differ in NCCL_* or GLOO_*", "set the same on all workers")
    given = dict(workers[0].environment) if workers else {}
    return Check("nccl", "ok", ", ".join(f"{name}={value}" for name, value in given.items()) or "defaults")


def missing(names: str, interfaces: frozenset[str]) -> str:
    """The first interface of an IFNAME list that no interface here matches; "^" excludes, "=" is exact."""
    if names.startswith("^"):
        return ""
    exact = names.startswith("=")
    for name in filter(None, names.removeprefix("=").split(",")):
        if not any(each == name or (not exact and each.startswith(name)) for each in interfaces):
            return name
    return ""


def shared_memory(nodes: Iterable[NodeFacts]) -> Check:
    workers = [node for node in nodes if not node.head] or list(nodes)
    least = min(workers, key=lambda node: node.shm_total)
    found = f"{least.shm_total / GIB:.2f} GiB on {least.address}"
    advice = "mount an emptyDir of medium Memory at /dev/shm, or run the container with --shm-size=8g"
    verdict: Verdict = (
        "fail" if least.shm_total < SHM_FAIL else "warn" if least.shm_total < SHM_WARN else "ok"
    )
    return Check("shared memory", verdict, found, "" if verdict == "ok" else advice)


def niceness(nodes: Iterable[NodeFacts]) -> Check:
    worst = max(nodes, key=lambda node: node.niceness)
    if worst.niceness > 0:
        found = f"{worst.niceness} on {worst.address}"
        advice = "start Ray with RAY_worker_niceness=0, or everything else goes before the engine"
        return Check("niceness", "warn", found, advice)
    return Check("niceness", "ok", "0")


def store(stores: Iterable[StoreFacts]) -> Iterator[Check]:
    listed = list(stores)
    yield from worst(listed, policy, "store policy", "noeviction")
    yield from worst(listed, durability, "store durability", "append-only file and a replica")
    yield from worst(listed, headroom, "store memory", "below its limit")


def worst(
    stores: list[StoreFacts], judge: Callable[[StoreFacts], tuple[Verdict, str, str]], name: str, good: str
) -> Iterator[Check]:
    """One check for all masters: the first that fails, else the first to worry about."""
    order = {"fail": 0, "warn": 1, "ok": 2}
    verdict, found, advice = min((judge(each) for each in stores), key=lambda told: order[told[0]])
    yield Check(name, verdict, found or f"{good} ({stores[0].version})", advice)


def policy(facts: StoreFacts) -> tuple[Verdict, str, str]:
    if facts.policy != "noeviction":
        return (
            "fail",
            f"{facts.policy} on {facts.server}",
            "set maxmemory-policy noeviction: it holds journals and keys",
        )
    if facts.full_coverage:
        found = f"cluster-require-full-coverage yes on {facts.server}"
        return "warn", found, "set it to no: with it one lost shard stops the turns of all"
    return "ok", "", ""


def durability(facts: StoreFacts) -> tuple[Verdict, str, str]:
    if not facts.append_only:
        return (
            "warn",
            f"no append-only file on {facts.server}",
            "set appendonly yes, or a restart forgets keys and turns",
        )
    if not facts.replicas:
        return "warn", f"no replica of {facts.server}", "`durable` turns stay UNCONFIRMED without one"
    return "ok", "", ""


def headroom(facts: StoreFacts) -> tuple[Verdict, str, str]:
    found = f"{facts.memory_share:.0%} of maxmemory on {facts.server}"
    if facts.memory_share >= FULL:
        return "fail", found, "give it more memory: new turns are refused"
    if facts.memory_share >= MEMORY_WARN:
        return "warn", found, "give it more memory, or shorten the setting retention"
    return "ok", "", ""


def skew(clocks: Iterable[tuple[str, float, float]]) -> Check:
    """What is surely off: the skew less what the reading itself may be wrong by."""
    where, off, error = max(clocks, key=lambda clock: abs(clock[1]) - clock[2])
    sure = max(0.0, abs(off) - error)
    found = f"{where} is {off:+.2f} s from here (known to {error:.2f} s)"
    advice = "run a time service on all nodes: dates, retention and traces go by their clocks"
    if sure >= SKEW_FAIL:
        return Check("clocks", "fail", found, advice)
    return Check("clocks", "warn" if sure >= SKEW_WARN else "ok", found, advice if sure >= SKEW_WARN else "")
