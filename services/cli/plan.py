"""`headrace plan`: how a model is laid out on GPUs, or what this machine can run."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from cluster.models import report
from cluster.models.catalogue import CATALOGUE, Model, UnknownModel, find
from cluster.models.cpu import CpuFit, on_cpu
from cluster.models.gpus import BY_NAME, GIB, Gpu, read_listing
from cluster.models.planner import NODE, NoPlan, Plan, PlanError, Question, plan
from deploy.local import readings
from services.cli import output
from services.cli.exits import FAILED, USAGE, CliError, stop

NO_FIGURE = "no published figure for this layout"


@dataclass(frozen=True, slots=True)
class Wish:
    model: str | None
    gpu: str | None
    gpus: int | None
    here: bool
    context: str | None
    concurrency: int
    gpus_per_node: int | None


def show(wish: Wish, *, as_json: bool, as_helm: bool) -> None:
    if as_json and as_helm:
        stop("two formats are asked for", "Give --json or --helm.", code=USAGE)
    models = _models(wish.model)
    gpus = _gpus(wish)
    if as_helm and len(models) != 1:
        stop("values are of one model", "Give --model.", code=USAGE)
    if not gpus:
        _show_cpu(models, as_json=as_json, as_helm=as_helm)
        return
    plans = [_plan(model, gpus, wish) for model in models]
    if as_json:
        documents = [report.document(each) for each in plans]
        output.as_json(documents[0] if wish.model else documents)
    elif as_helm and isinstance(plans[0], Plan):
        print(report.yaml(report.values(plans[0])), end="")
    elif wish.model and not as_helm:
        _show_one(plans[0])
    elif not as_helm:
        output.table(("MODEL", "PLAN", "CONTEXT", "SEQUENCES", "WHY NOT"), map(_overview, plans))
    if wish.model and isinstance(plans[0], NoPlan):
        _refuse(plans[0])


def _models(name: str | None) -> Sequence[Model]:
    if name is None:
        return CATALOGUE
    try:
        return (find(name),)
    except UnknownModel as error:
        raise CliError(str(error), code=USAGE) from error


def _gpus(wish: Wish) -> Sequence[Gpu]:
    """The GPUs to plan for, all of one kind; none: this machine has a CPU only."""
    if wish.here:
        if wish.gpu or wish.gpus:
            stop("--here looks at this machine's own GPUs", "Leave --gpu and --gpus out.", code=USAGE)
        found = read_listing(readings.gpu_listing())
        return [gpu for gpu in found if gpu == found[0]]
    if wish.gpu is None or wish.gpus is None:
        stop("no GPUs are named", "Give --gpu KIND and --gpus N, or --here.", code=USAGE)
    kind = BY_NAME.get(wish.gpu.lower())
    if kind is None:
        stop(f"no GPU kind {wish.gpu!r}", f"Choose one of {', '.join(BY_NAME)}.", code=USAGE)
    return [kind] * wish.gpus


def _plan(model: Model, gpus: Sequence[Gpu], wish: Wish) -> Plan | NoPlan:
    node = wish.gpus_per_node or (len(gpus) if wish.here else NODE)
    context = tokens(wish.context) if wish.context else None
    # In an overview each model takes what it can of the context.
    context = min(context, model.context) if context and not wish.model else context
    try:
        return plan(Question(model, gpus[0], len(gpus), context, wish.concurrency, node))
    except PlanError as error:
        raise CliError(str(error), code=USAGE) from error


def tokens(text: str) -> int:
    """32768, or 32k for the same."""
    if not (match := re.fullmatch(r"(\d{1,9})([kK]?)", text)):
        stop(f"--context {text!r} is no number of tokens", "Write 32768 or 32k.", code=USAGE)
    return int(match[1]) * (1024 if match[2] else 1)


def _show_one(made: Plan | NoPlan) -> None:
    if isinstance(made, Plan):
        output.table(("PLAN", _title(made)), _rows(made))
        print()
        output.table(("TOKENS/S", "PER REPLICA", "LOAD ON A REPLICA", "ENGINE", "SOURCE"), _figures(made))
    if made.rejected:
        print()
        output.table(("NOT TAKEN", "WHY"), ((each.name, each.why) for each in made.rejected))


def _title(made: Plan) -> str:
    question, layout = made.question, made.layout
    nodes = layout.arguments.nodes
    over = f", each over {nodes} nodes" if nodes > 1 else ""
    where = f"{question.model.name} on {question.gpus} x {question.gpu.name}"
    return f"{where}: {layout.name} x {layout.replicas} replicas{over}"


def _rows(made: Plan) -> list[tuple[str, str]]:
    layout, question = made.layout, made.question
    have, arguments = layout.memory, layout.arguments
    per_gpu = f"{have.weights:.1f} weights, {have.kv:.1f} KV cache, {have.reserve:.1f} activations and graphs"
    rows = [
        ("GiB per GPU", per_gpu),
        (
            "",
            f"of {have.usable:.1f} usable ({arguments.gpu_memory_utilization:.0%} of {question.gpu.memory_gib:.1f})",
        ),
        (
            "sequences",
            f"{made.sequences:,} of {arguments.max_model_len:,} tokens; {question.concurrency:,} asked for",
        ),
        ("engine", ", ".join(f"{name}={value}" for name, value in _arguments(made))),
        ("link", question.gpu.link),
    ]
    return rows + [("note", note) for note in made.notes]


def _arguments(made: Plan) -> list[tuple[str, object]]:
    return list(report.document(made)["engine"].items())


def _figures(made: Plan) -> list[tuple[str, ...]]:
    figures: list[tuple[str, ...]] = [
        (f"{each['total']:,}", f"{each['per_replica']:,}", each["load"], each["engine"], each["source"])
        for each in report.published(made)
    ]
    return figures or [(NO_FIGURE, "", "", "", "")]


def _overview(made: Plan | NoPlan) -> tuple[object, ...]:
    if isinstance(made, NoPlan):
        return made.question.model.name, "-", "-", "-", f"{made.rejected[-1].why}; {made.instead}"
    layout = made.layout
    shape = f"{layout.name} x {layout.replicas}"
    return made.question.model.name, shape, f"{layout.arguments.max_model_len:,}", f"{made.sequences:,}", ""


def _refuse(made: NoPlan) -> NoReturn:
    question, last = made.question, made.rejected[-1]
    what = f"{question.model.name} does not fit on {question.gpus} x {question.gpu.name} ({last.name}: {last.why})"
    raise CliError(what, f"{made.instead[:1].upper()}{made.instead[1:]}.", code=FAILED)


def _show_cpu(models: Sequence[Model], *, as_json: bool, as_helm: bool) -> None:
    free = readings.memory_free() / GIB
    fits = [on_cpu(model, free) for model in models]
    if as_helm and fits[0].why_not:
        raise CliError(f"{fits[0].model.name} does not fit: {fits[0].why_not}", code=FAILED)
    if as_helm:
        print(report.yaml(report.cpu_values(fits[0], readings.usable_cpus())), end="")
    elif as_json:
        output.as_json([_cpu_document(fit) for fit in fits])
    else:
        print(f"No NVIDIA GPU here: {readings.usable_cpus()} CPUs, {free:.1f} GiB free.")
        rows = ((f.model.name, "no" if f.why_not else "yes", f"{f.needs_gib:.1f}", f.why_not) for f in fits)
        output.table(("MODEL", "FITS", "NEEDS GiB", "WHY NOT"), rows)


def _cpu_document(fit: CpuFit) -> dict[str, object]:
    document = {"model": fit.model.name, "fits": not fit.why_not, "needs_gib": fit.needs_gib}
    return document | ({"why_not": fit.why_not} if fit.why_not else {"context": fit.context})
