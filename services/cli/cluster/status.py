"""`headrace cluster status`: a release as one report, with what is wrong and what to do."""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import typer

from services.cli import output
from services.cli.cluster import facts, scaling
from services.cli.cluster.facts import Object
from services.cli.cluster.kube import Kube
from services.cli.cluster.picture import Picture, take
from services.cli.exits import FAILED, OK

SOON_DAYS = (
    14.0  # a certificate that ends earlier is trouble; cert-manager renews at a third of the life left
)
SERVED = "headrace_tls_expiry_seconds"
Row = dict[str, Any]


@dataclass(slots=True)
class Report:
    namespace: str
    models: list[Row] = field(default_factory=list)
    pods: list[Row] = field(default_factory=list)
    gpus: list[Row] = field(default_factory=list)
    autoscalers: list[Row] = field(default_factory=list)
    scaling: list[Row] = field(default_factory=list)
    budgets: list[Row] = field(default_factory=list)
    certificates: list[Row] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def show(kube: Kube, release: str | None, *, as_json: bool) -> None:
    report = read(take(kube, release), datetime.now(UTC))
    if as_json:
        output.as_json(asdict(report))
    else:
        _print(report)
    raise typer.Exit(FAILED if report.trouble else OK)


def read(picture: Picture, now: datetime) -> Report:
    report = Report(picture.namespace, notes=list(picture.notes))
    for service in sorted(picture["rayservices"], key=facts.name):
        _model(report, picture, service)
    for pod in sorted(picture["pods"], key=_order):
        _pod(report, pod)
    report.gpus = _gpus(picture)
    for item in picture["horizontalpodautoscalers"] + picture["scaledobjects"]:
        _autoscaler(report, item)
    report.scaling = scaling.decisions(picture.readings)
    for budget in picture["poddisruptionbudgets"]:
        _budget(report, budget)
    for certificate in picture["certificates"]:
        _certificate(report, certificate, now)
    _served_certificates(report, picture, now)
    _deployments(report, picture)
    return report


def _model(report: Report, picture: Picture, service: Object) -> None:
    status = service.get("status") or {}
    model = facts.labels(service).get(facts.MODEL, facts.name(service))
    for role in ("active", "pending"):
        part = status.get(f"{role}ServiceStatus") or {}
        cluster = part.get("rayClusterName")
        if not cluster:
            continue
        pods = picture.pods_of(cluster)
        good = sum(map(facts.ready, pods))
        row = {"model": model, "service": facts.name(service), "cluster": cluster, "role": role}
        routed = part.get("trafficRoutedPercent")
        traffic = "by leases" if routed is None else f"{routed} %"
        report.models.append(
            row | {"pods": f"{good}/{len(pods)}", "traffic": traffic, "state": _state(service)}
        )
    if not facts.holds(service, "Ready"):
        why = facts.condition(service, "Ready")
        said = why.get("message") or why.get("reason") or "KubeRay has not reported; is its operator running?"
        report.trouble.append(f"{model} does not serve: {said}")


def _state(service: Object) -> str:
    if facts.holds(service, "UpgradeInProgress"):
        return "upgrading"
    return "ready" if facts.holds(service, "Ready") else "not ready"


def _order(pod: Object) -> tuple[str, str]:
    return facts.labels(pod).get(facts.COMPONENT, ""), facts.name(pod)


def _pod(report: Report, pod: Object) -> None:
    found = facts.trouble(pod)
    row = {
        "pod": facts.name(pod),
        "component": facts.labels(pod).get(facts.COMPONENT, ""),
        "state": facts.state(pod),
        "restarts": facts.restarts(pod),
        "gpus": facts.gpus(pod),
        "node": pod["spec"].get("nodeName", ""),
        "cause": str(found or ""),
    }
    report.pods.append(row)
    if found:
        report.trouble.append(f"{row['pod']}: {found}")


def _gpus(picture: Picture) -> list[Row]:
    asked: dict[str, int] = {}
    for pod in picture["pods"]:
        node = pod["spec"].get("nodeName", "")
        asked[node] = asked.get(node, 0) + facts.gpus(pod)
    rows = [
        {
            "node": facts.name(node),
            "allocatable": has,
            "ours": asked.get(facts.name(node), 0),
            "cordoned": _cordoned(node),
        }
        for node in picture.nodes
        if (has := facts.allocatable(node)) or asked.get(facts.name(node))
    ]
    waiting = asked.get("", 0)
    return rows + (
        [{"node": "(no node yet)", "allocatable": 0, "ours": waiting, "cordoned": False}] if waiting else []
    )


def _cordoned(node: Object) -> bool:
    return bool(node.get("spec", {}).get("unschedulable"))


def _autoscaler(report: Report, item: Object) -> None:
    spec, status = item["spec"], item.get("status") or {}
    keda = item["kind"] == "ScaledObject"
    least, most = ("minReplicaCount", "maxReplicaCount") if keda else ("minReplicas", "maxReplicas")
    row = {"name": facts.name(item), "kind": item["kind"], "min": spec.get(least, 1), "max": spec.get(most)}
    row |= {"current": status.get("currentReplicas", ""), "desired": status.get("desiredReplicas", "")}
    active = facts.condition(item, "Ready" if keda else "ScalingActive")
    if active.get("status") == "False":
        report.trouble.append(
            f"{row['name']} does not scale: {active.get('message') or active.get('reason')}"
        )
    report.autoscalers.append(row)


def _budget(report: Report, item: Object) -> None:
    status = item.get("status") or {}
    healthy = f"{status.get('currentHealthy', 0)}/{status.get('expectedPods', 0)}"
    row = {"name": facts.name(item), "healthy": healthy, "may go": status.get("disruptionsAllowed", 0)}
    report.budgets.append(row)
    broken = facts.condition(item, "DisruptionAllowed")
    if broken.get("reason") == "SyncFailed":
        report.trouble.append(f"budget {row['name']} lets nobody go: {broken.get('message', '')}")


def _certificate(report: Report, item: Object, now: datetime) -> None:
    name, ends = facts.name(item), (item.get("status") or {}).get("notAfter")
    if not facts.holds(item, "Ready"):
        why = facts.condition(item, "Ready").get("message", "not issued")
        report.trouble.append(f"certificate {name}: {why}")
    if ends is None:
        report.certificates.append({"name": name, "ends": "not issued", "days": None})
        return
    _ending(
        report, name, datetime.fromisoformat(ends.replace("Z", "+00:00")), now, "is cert-manager running?"
    )


def _served_certificates(report: Report, picture: Picture, now: datetime) -> None:
    """What gateways really serve, which a renewed Secret alone does not change."""
    for pod, found in sorted(picture.readings.items()):
        if ends := next((each.value for each in found if each.name == SERVED and each.value), None):
            _ending(report, f"served by {pod}", datetime.fromtimestamp(ends, UTC), now, "renew its Secret")


def _ending(report: Report, name: str, ends: datetime, now: datetime, do: str) -> None:
    days = (ends - now).total_seconds() / 86400
    report.certificates.append({"name": name, "ends": f"{ends:%Y-%m-%d %H:%M} UTC", "days": round(days, 1)})
    if days < SOON_DAYS:
        report.trouble.append(f"certificate {name} ends in {days:.1f} days; {do}")


def _deployments(report: Report, picture: Picture) -> None:
    for item in picture["deployments"] + picture["statefulsets"]:
        wanted, has = item["spec"].get("replicas", 1), (item.get("status") or {}).get("readyReplicas", 0)
        if has < wanted:
            report.trouble.append(f"{facts.name(item)}: {has} of {wanted} pods are ready")


TITLES = ("models", "pods", "gpus", "autoscalers", "scaling", "budgets", "certificates")


def _print(report: Report) -> None:
    first = True
    for title in TITLES:
        rows: list[Row] = getattr(report, title)
        if not rows:
            continue
        if not first:
            print()
        first = False
        shown = [{name: _cell(value) for name, value in row.items()} for row in rows]
        output.table([name.upper() for name in shown[0]], (tuple(row.values()) for row in shown))
    for note in report.notes:
        print(f"\nnote: {note}")
    for trouble in report.trouble:
        print(f"\ntrouble: {output.safe(trouble)}")


def _cell(value: Any) -> str:
    return (
        {True: "yes", False: "no"}[value] if isinstance(value, bool) else "" if value is None else str(value)
    )
