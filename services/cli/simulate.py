"""`headrace simulate-scaling`: what the autoscaling law, and other laws, make of a day of traffic."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cluster.models.catalogue import UnknownModel, find
from cluster.models.gpus import BY_NAME
from cluster.models.planner import PlanError
from cluster.scaling.settings import ScalingSettings
from cluster.scaling.simulation.day import Outcome, World, mean, peak_replicas, simulate
from cluster.scaling.simulation.policies import policies
from cluster.scaling.simulation.speeds import NoSpeed, Speed, speed
from cluster.scaling.simulation.sweep import VALUES, sweep
from services.cli import output
from services.cli.exits import USAGE, CliError, stop

NAMES = ("headrace", "static", "serve-requests", "cpu", "kv-only")
SWEPT_DAYS = 3  # of each value, if nothing is said
PLOTS = (".png", ".svg")
HEADS = (
    "IN BUDGET", "AVAILABLE", "TTFT P50", "P95", "P99", "TOKEN P95",
    "GPU-HOURS", "PEAK", "UP", "DOWN", "HELD", "REFUSED",
)  # fmt: skip

M = TypeVar("M", World, ScalingSettings)


@dataclass(frozen=True, slots=True)
class Wish:
    """`settings` are NAME=VALUE of the law and of the simulated world."""

    model: str
    gpu: str
    gpus: int
    hours: float
    seed: int
    days: int | None
    settings: Sequence[str]
    policies: str
    sweep: str | None
    csv: Path | None
    plot: Path | None


@dataclass(frozen=True, slots=True)
class Setting:
    """What a wish means."""

    world: World
    speed: Speed
    law: ScalingSettings


def show(wish: Wish, *, as_json: bool) -> None:
    names = _chosen(wish.policies)
    if wish.plot and wish.plot.suffix not in PLOTS:
        stop(f"--plot {str(wish.plot)!r} is no picture", f"End it in {' or '.join(PLOTS)}.", code=USAGE)
    if wish.plot and wish.sweep:
        stop("a sweep has no plot", "Leave --plot or --sweep out.", code=USAGE)
    setting = _setting(wish)
    if wish.sweep:
        field, values = _swept(wish.sweep)
        rows = list(_guarded(field, values, setting, wish.days or SWEPT_DAYS))
        head, outcomes = field.upper(), [(f"{row.value:g}", row.outcome) for row in rows]
    else:
        head, outcomes = "POLICY", [(each.policy, each) for each in _days(setting, names, wish.days or 1)]
    _print(wish, setting, head, outcomes, as_json=as_json)
    if wish.csv:
        _write_csv(wish.csv, head, outcomes)
    if wish.plot:
        _draw(wish, setting, [outcome for _, outcome in outcomes])


def _chosen(text: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",")] if text else list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        stop(f"--policies has {unknown[0]!r}", f"Choose of {', '.join(NAMES)}.", code=USAGE)
    return names


def _setting(wish: Wish) -> Setting:
    given = dict(map(_pair, wish.settings))
    if wish.gpu.lower() not in BY_NAME:
        stop(f"no GPU kind {wish.gpu!r}", f"Choose one of {', '.join(BY_NAME)}.", code=USAGE)
    of_world = {name: given.pop(name) for name in list(given) if name in World.model_fields}
    world = _validated(World, {"hours": wish.hours, "seed": wish.seed} | of_world)
    try:
        prefill = given.get("prefill_tokens_per_second")
        # The figure is checked with the other settings of the law; here it has to be a number.
        found = speed(find(wish.model), BY_NAME[wish.gpu.lower()], wish.gpus, _number(prefill))
    except (UnknownModel, NoSpeed, PlanError) as error:
        advice = "Say --set prefill_tokens_per_second=N." if "prefill" in str(error) else ""
        raise CliError(str(error), advice, code=USAGE) from error
    known = {
        "max_replicas": found.most,
        "prefill_tokens_per_second": found.timing.prefill_tokens_per_s,
    }
    law = _validated(ScalingSettings, known | given)
    if law.max_replicas > found.most:
        stop(
            f"max_replicas {law.max_replicas} is more than the {found.most} that {wish.gpus} GPUs hold",
            "Raise --gpus or lower max_replicas.",
            code=USAGE,
        )
    return Setting(world, found, law)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    known = [*ScalingSettings.model_fields, *World.model_fields]
    if not equals or name not in known:
        stop(f"--set {text!r} is no setting", f"Write NAME=VALUE, NAME of {', '.join(known)}.", code=USAGE)
    return name, value


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value <= 1e7:
        stop(
            f"prefill_tokens_per_second {text!r} is out of range",
            "Give more than 0 and at most 1e7.",
            code=USAGE,
        )
    return value


def _validated(kind: type[M], values: dict[str, Any]) -> M:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _refused(error) from error


def _refused(error: ValidationError) -> CliError:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return CliError(f"{name} {message[0].lower()}{message[1:]}".strip(), code=USAGE)


def _swept(text: str) -> tuple[str, Sequence[float]]:
    name, _, listed = text.partition("=")
    if name not in VALUES:
        stop(f"--sweep knows no {name!r}", f"Choose one of {', '.join(VALUES)}.", code=USAGE)
    try:
        return name, [float(value) for value in listed.split(",")] if listed else VALUES[name]
    except ValueError:
        stop(f"--sweep {text!r} has what is no number", f"Write {name}=A,B,C.", code=USAGE)


def _guarded(field: str, values: Sequence[float], setting: Setting, days: int) -> Iterator[Any]:
    try:
        yield from sweep(field, values, setting.world, setting.speed, setting.law, days)
    except ValidationError as error:
        raise _refused(error) from error


def _days(setting: Setting, names: Sequence[str], days: int) -> list[Outcome]:
    made: dict[str, list[Outcome]] = {name: [] for name in NAMES if name in names}
    for seed in range(setting.world.seed, setting.world.seed + days):
        for outcome in _day(setting, setting.world.model_copy(update={"seed": seed}), names):
            made[outcome.policy].append(outcome)
    return [mean(each) for each in made.values()]


def _day(setting: Setting, world: World, names: Sequence[str]) -> Iterator[Outcome]:
    found, law = setting.speed, setting.law
    for policy in policies(law, peak_replicas(world, found, law)):
        if policy.name in names:
            yield simulate(policy, world, found, law)


def _print(
    wish: Wish, setting: Setting, head: str, outcomes: Sequence[tuple[str, Outcome]], *, as_json: bool
) -> None:
    if as_json:
        output.as_json(
            {
                "model": wish.model,
                "gpu": wish.gpu,
                "gpus": wish.gpus,
                "days": wish.days or (SWEPT_DAYS if wish.sweep else 1),
                "world": setting.world.model_dump(),
                "settings": setting.law.model_dump(),
                "speed": list(setting.speed.sources),
                "rows": [{head.lower(): name} | outcome.document() for name, outcome in outcomes],
            }
        )
        return
    print(_title(wish, setting))
    print(f"Speed of a replica: {'; '.join(setting.speed.sources)}.")
    print()
    output.table((head, *HEADS), ((name, *_cells(outcome)) for name, outcome in outcomes))


def _title(wish: Wish, setting: Setting) -> str:
    world, found = setting.world, setting.speed
    return (
        f"{wish.model} on {wish.gpus} x {wish.gpu}: up to {found.most} replicas of {found.gpus} GPU(s), "
        f"{world.hours:g} h{_days_told(wish)}, seed {world.seed}, cold start {world.cold_start_seconds:g} s, "
        f"TTFT budget {setting.law.ttft_budget_seconds:g} s"
    )


def _days_told(wish: Wish) -> str:
    days = wish.days or (SWEPT_DAYS if wish.sweep else 1)
    return f", mean of {days} days" if days > 1 else ""


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        f"{outcome.in_budget:.2%}",
        f"{outcome.available:.3%}",
        *(f"{seconds:.2f} s" for seconds in (outcome.ttft_p50, outcome.ttft_p95, outcome.ttft_p99)),
        f"{outcome.token_p95 * 1000:.0f} ms",
        f"{outcome.gpu_hours:,.0f}",
        *(f"{count:,}" for count in (outcome.peak_replicas, outcome.raised, outcome.lowered)),
        f"{outcome.held:,.0f}",
        f"{outcome.refused:,.0f}",
    )


def _write_csv(file: Path, head: str, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    rows = [{head.lower(): name} | outcome.document() for name, outcome in outcomes]
    try:
        with file.open("w", newline="") as text:
            writer = csv.DictWriter(text, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}") from error


def _draw(wish: Wish, setting: Setting, outcomes: Sequence[Outcome]) -> None:
    assert wish.plot is not None
    from cluster.scaling.simulation.plot import NoPlots, draw

    try:
        draw(outcomes, _title(wish, setting), wish.plot)
    except NoPlots as error:
        raise CliError(str(error), "Run `pip install headrace[plots]`.") from error
    except OSError as error:
        raise CliError(f"cannot write {wish.plot}: {error.strerror}") from error
