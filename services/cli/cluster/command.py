"""Signatures of `headrace cluster`; bodies import what they need when they run."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="A release on Kubernetes: status, upgrade, drain, bundle. Needs a kubeconfig, or a pod's account.",
    no_args_is_help=True,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Where the release is. Default: the context's.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: its current one.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="Else KUBECONFIG, ~/.kube/config, a pod's account.")]
Release = Annotated[str | None, typer.Option(help="Name of the release, if the namespace has several.")]
Patience = Annotated[float, typer.Option(min=0, max=86_400, help="Seconds to wait at most.")]


@app.command()
def status(
    namespace: Namespace = None,
    release: Release = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    as_json: Json = False,
) -> None:
    """Show models, pods, GPUs, autoscalers, budgets, certificates, and what is wrong with them.

    Exits 0 if all is well, 1 if something is wrong, 3 if nothing of headrace is there.

    Example:  headrace cluster status -n inference
    """
    from services.cli.cluster import kube
    from services.cli.cluster.status import show

    show(kube.connect(kubeconfig, context, namespace), release, as_json=as_json)


@app.command()
def upgrade(
    model: Annotated[str, typer.Argument(help="Name of the model, or of its RayService.")],
    revision: Annotated[str | None, typer.Option(help="Revision of the checkpoint to go to.")] = None,
    image: Annotated[str | None, typer.Option(help="Tag of the engine's image to go to.")] = None,
    chart: Annotated[str, typer.Option(help="Chart, in the command that is printed.")] = "helm/headrace",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the upgrade until it is done.")] = False,
    patience: Patience = 3600.0,
    namespace: Namespace = None,
    release: Release = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the helm command that upgrades a model, and with --watch follow the upgrade and say what blocks it.

    Nothing is changed here: a release is helm's. Run the command in another terminal. --watch exits 0 when the
    old cluster has gone, 1 when --patience ran out before or the upgrade was taken back.

    Example:  headrace cluster upgrade gpt-oss-120b --revision 9f1c0de --watch
    """
    from services.cli.cluster import kube
    from services.cli.cluster.upgrade import Wish, run

    wish = Wish(model, revision, image, chart, watch, patience)
    run(kube.connect(kubeconfig, context, namespace), release, wish)


@app.command()
def drain(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only ask the API server what would happen.")
    ] = False,
    patience: Patience = 1800.0,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Cordon a node and move headrace's pods off it, as disruption budgets and grace periods allow.

    A gateway pod ends after its streams, a replica's after its turns have gone on elsewhere. Other pods stay:
    `kubectl drain` moves those. Exits 0 when none of ours is left, 1 when --patience ran out before.

    Example:  headrace cluster drain gpu-node-7 -n inference --dry-run
    """
    from services.cli.cluster import kube
    from services.cli.cluster.drain import run

    run(kube.connect(kubeconfig, context, namespace), node, patience, dry_run=dry_run)


@app.command()
def bundle(
    to: Annotated[Path, typer.Option(help="File to write.")] = Path("headrace-bundle.tar.gz"),
    lines: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Last lines of each container's log.")
    ] = 5000,
    namespace: Namespace = None,
    release: Release = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Collect logs, events, objects, settings and metrics of a release into one file, with secrets masked.

    Masked are the data of Secrets wherever they occur, and what looks like a credential. Prompts and answers are
    in no log. Look at the file before you send it.

    Example:  headrace cluster bundle -n inference --to case-42.tar.gz
    """
    from services.cli.cluster import kube
    from services.cli.cluster.bundle import run

    run(kube.connect(kubeconfig, context, namespace), release, to, lines)


@app.command()
def role(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the release is.")],
    user: Annotated[
        str | None, typer.Option(help="Who is to have it: a user, as the API server calls them.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Or a service account, as NAMESPACE:NAME.")] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Allow `drain` too.")] = False,
    bundle: Annotated[bool, typer.Option("--bundle", help="Allow `bundle` too, but for Secrets.")] = False,
    secrets: Annotated[
        bool,
        typer.Option(
            "--secrets", help="Let `bundle` read Secrets, so that it masks them wherever they occur."
        ),
    ] = False,
) -> None:
    """Print the Roles that these commands need, and no more, for `kubectl apply -f -`.

    Example:  headrace cluster role -n inference --user alice --bundle | kubectl apply -f -
    """
    from services.cli.cluster.role import show

    show(namespace, user, account, drain=drain, bundle=bundle, secrets=secrets)
