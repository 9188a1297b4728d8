"""The autoscaler's last decisions, from the metrics that Ray's heads show (cluster/serving names them)."""

from services.cli.cluster.metrics import Reading

PREFIX = "ray_headrace_scaling_"


def decisions(readings: dict[str, list[Reading]]) -> list[dict[str, object]]:
    """One row a model and pod that reports: replicas wanted and running, by which signals, and what holds a change."""
    rows = []
    for found in readings.values():
        ours = [each for each in found if each.name.startswith(PREFIX)]
        for model in sorted({each.labels.get("model", "") for each in ours}):
            rows.append(_row(model, [each for each in ours if each.labels.get("model") == model]))
    return rows


def _row(model: str, found: list[Reading]) -> dict[str, object]:
    wanted = {each.labels.get("signal", ""): each.value for each in found if each.name == f"{PREFIX}wanted"}
    held = [each.labels.get("because", "") for each in found if each.name == f"{PREFIX}held" and each.value]
    return {
        "model": model,
        "desired": _value(found, "desired"),
        "current": _value(found, "current"),
        "wanted": ", ".join(f"{signal} {value:.2g}" for signal, value in sorted(wanted.items())),
        "held": ", ".join(held),
        "silent": _value(found, "stale_replicas"),
    }


def _value(found: list[Reading], name: str) -> int | None:
    return next((int(each.value) for each in found if each.name == PREFIX + name), None)
