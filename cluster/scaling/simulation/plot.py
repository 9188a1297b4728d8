"""The day as a picture: traffic, replicas of each policy, and what callers saw. matplotlib is loaded here only."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.scaling.simulation.day import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DOTS = 10, 8, 110


class NoPlots(Exception):
    """matplotlib is not installed."""


def draw(outcomes: Sequence[Outcome], title: str, file: Path) -> None:
    """Write `file`, whose ending is .png or .svg. Raises NoPlots, OSError."""
    try:
        import matplotlib
    except ImportError as error:
        raise NoPlots("matplotlib is not installed") from error
    matplotlib.use("Agg")
    # The same figures give the same file, byte for byte.
    matplotlib.rcParams["svg.hashsalt"] = "headrace"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    rate, replicas, shares = figure.subplots(3, 1, height_ratios=(2, 4, 2))
    rate.set_title(title, fontsize="medium")
    _rate(rate, outcomes[0])
    _replicas(replicas, outcomes)
    _shares(shares, outcomes)
    # No date in it, for the same reason.
    figure.savefig(file, dpi=DOTS, metadata={"Date": None} if file.suffix == ".svg" else None)


def _rate(axes: "Axes", outcome: Outcome) -> None:
    hours = [moment.hour for moment in outcome.course]
    axes.fill_between(hours, [moment.rate for moment in outcome.course], alpha=0.3)
    axes.set_ylabel("turns/s")
    axes.set_xlim(0, hours[-1])


def _replicas(axes: "Axes", outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        hours = [moment.hour for moment in outcome.course]
        label = f"{outcome.policy}: {outcome.gpu_hours:,.0f} GPU-hours, {outcome.in_budget:.2%} in budget"
        width = 2.0 if outcome is outcomes[0] else 1.0
        axes.step(hours, [moment.target for moment in outcome.course], where="post", lw=width, label=label)
    axes.set_ylabel("replicas asked for")
    axes.set_xlabel("hour of the first day")
    axes.set_xlim(0, outcomes[0].course[-1].hour)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def _shares(axes: "Axes", outcomes: Sequence[Outcome]) -> None:
    names = [outcome.policy for outcome in outcomes]
    late = [100 * (outcome.available - outcome.in_budget) for outcome in outcomes]
    refused = [100 * (1 - outcome.available) for outcome in outcomes]
    axes.barh(names, refused, label="refused", color="tab:red")
    axes.barh(names, late, left=refused, label="first token late", color="tab:orange")
    axes.set_xlabel("% of turns")
    axes.set_xscale("symlog", linthresh=0.1)
    axes.invert_yaxis()
    axes.legend(fontsize="small")
