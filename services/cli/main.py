"""The `headrace` command. Only signatures stand here: each command imports what it needs when it runs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from services.cli import keys, sessions, turns
from services.cli.cluster.command import app as cluster
from services.cli.exits import FAILED, INTERRUPTED, TABLE, CliError

app = typer.Typer(
    name="headrace",
    help="Open-weight language models behind one gRPC endpoint.",
    epilog=TABLE,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cluster, name="cluster")
app.add_typer(keys.app, name="keys")
app.add_typer(sessions.app, name="sessions")
app.add_typer(turns.app, name="turns")

Effort = Literal["low", "medium", "high"]
Endpoint = Annotated[
    str | None, typer.Option(help="host:port, or https://host:port for TLS. Else HEADRACE_ENDPOINT.")
]
KeyFile = Annotated[
    Path | None, typer.Option(help="File with the API key. Else HEADRACE_API_KEY or HEADRACE_API_KEY_FILE.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def up(
    model: Annotated[
        str | None,
        typer.Option(
            help="A name from `headrace plan`, micro, or a checkpoint folder. Default: by hardware."
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="vllm (the default), or sim: a simulated engine that says nonsense.")
    ] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65533, help="The API's; the next two are health and metrics. 0: any free."),
    ] = 50051,
    patience: Annotated[float, typer.Option(help="Seconds to wait for the engine.")] = 600.0,
    tensor_parallel: Annotated[
        int | None, typer.Option(min=1, max=64, help="Shards of the engine. Default: by the plan.")
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, max=64, help="Engines; with several, turns go on at once when one is lost.")
    ] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(min=1, max=64, help="Scale between --replicas and so many, by load.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the gateway; the same.")] = 1,
) -> None:
    """Bring up Valkey, Ray, an engine and the gateway on this machine.

    Examples:  headrace up   |   headrace up --model micro   |   headrace up --engine sim --replicas 2 --workers 2
    """
    from services.cli.stack import up as run

    run(model, engine, port, patience, tensor_parallel, replicas, workers, max_replicas)


@app.command()
def down() -> None:
    """Stop exactly what `headrace up` started. Data, keys and weights stay."""
    from services.cli.stack import down as run

    run()


@app.command()
def status(as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """Show replicas, load, store, processes and versions. Exits 0 if all is well, 1 if not, 3 if not up."""
    from services.cli.status import show

    show(endpoint, key_file, as_json=as_json)


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="What to ask. Without it: a conversation.")] = None,
    model: Annotated[str, typer.Option(help="Model, if the endpoint serves several.")] = "",
    session: Annotated[
        str, typer.Option(help="Keep the history at the endpoint: a session's id, or `new`.")
    ] = "",
    system: Annotated[str, typer.Option(help="System message at the start.")] = "",
    max_tokens: Annotated[int | None, typer.Option(help="Tokens of an answer at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy, 2 is wild.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds to go on trying while no replica answers.")] = 0.0,
    effort: Annotated[Effort | None, typer.Option(help="How much a reasoning model thinks.")] = None,
    reasoning: Annotated[
        bool, typer.Option("--reasoning", help="Show the model's reasoning too, on stderr.")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="File with a JSON Schema that the answer conforms to.")
    ] = None,
    endpoint: Endpoint = None,
    key_file: KeyFile = None,
) -> None:
    """Ask once, or hold a conversation; the answer streams. Ctrl-C ends the answer, Ctrl-D the conversation.

    Examples:  headrace chat "What is the capital of France?"   |   headrace chat --session new
    """
    from services.cli.chat import Talk, talk

    wish = Talk(model, session, system, max_tokens, temperature, patience, effort, reasoning, schema)
    talk(wish, prompt, endpoint, key_file)


@app.command()
def drill(
    streams: Annotated[int, typer.Option(min=1, max=256, help="Answers at once.")] = 16,
    tokens: Annotated[
        int | None, typer.Option(min=16, max=8192, help="Tokens of each. Default: by the engine.")
    ] = None,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="Then kill a worker of the gateway too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Kill a replica of the stack on this machine under load and watch every stream finish.

    Exits 0 only if all finished and no token was lost, repeated or reordered.

    Example:  headrace up --engine sim --replicas 2 --workers 2 && headrace drill --gateway
    """
    from services.cli.drill import Wish, run

    run(Wish(streams, tokens, gateway), as_json=as_json)


@app.command()
def models(as_json: Json = False, endpoint: Endpoint = None, key_file: KeyFile = None) -> None:
    """List the models that the endpoint serves."""
    from services.cli.models import show

    show(endpoint, key_file, as_json=as_json)


@app.command()
def config(as_json: Json = False) -> None:
    """Show the gateway's effective settings and where each comes from. Secrets are masked."""
    from services.cli.config import show

    show(as_json=as_json)


@app.command()
def plan(
    model: Annotated[
        str | None, typer.Option(help="Name, short name or repository. Without it: all.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="b200, h200, h100, a100-80, l40s or l4.")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, max=100_000, help="How many of them.")] = None,
    here: Annotated[bool, typer.Option("--here", help="Look at this machine instead.")] = False,
    context: Annotated[
        str | None,
        typer.Option(help="Tokens of a sequence, such as 32k. Without it: what fits, at most the model's."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000_000, help="Sequences at once.")] = 1,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, max=1024, help="GPUs of a machine, 8 if unsaid.")
    ] = None,
    as_json: Json = False,
    as_helm: Annotated[bool, typer.Option("--helm", help="Print values for the Helm chart.")] = False,
) -> None:
    """Show how a model is laid out on GPUs: shards, replicas, memory, published speed. Exits 1 if it does not fit.

    Example:  headrace plan --model gpt-oss-120b --gpu h100 --gpus 16 --context 32k --concurrency 200
    """
    from services.cli.plan import Wish, show

    wish = Wish(model, gpu, gpus, here, context, concurrency, gpus_per_node)
    show(wish, as_json=as_json, as_helm=as_helm)


@app.command("simulate-scaling")
def simulate_scaling(
    model: Annotated[str, typer.Option(help="A name from `headrace plan`.")] = "gpt-oss-120b",
    gpu: Annotated[str, typer.Option(help="b200, h200, h100, a100-80, l40s or l4.")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, max=10_000, help="How many there are at most.")] = 64,
    hours: Annotated[float, typer.Option(min=0.1, max=168, help="Of traffic, from midnight on.")] = 24.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Another one is another day.")] = 1,
    days: Annotated[
        int | None, typer.Option(min=1, max=100, help="Seeds to take the mean of. Default: 1, of a sweep 3.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of the law or the world; may be repeated.")
    ] = None,
    policies: Annotated[
        str, typer.Option(help="Some of headrace,static,serve-requests,cpu,kv-only. Default: all.")
    ] = "",
    sweep: Annotated[
        str | None, typer.Option(help="A setting to vary, such as target_turns, or target_turns=64,128.")
    ] = None,
    as_json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="File to write the rows to.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture to write: .png or .svg.")] = None,
) -> None:
    """Run the autoscaling law, and others, through a simulated day of traffic: SLO, GPU-hours, scale events.

    Examples:  headrace simulate-scaling --gpus 1000   |   headrace simulate-scaling --sweep target_turns
    """
    from services.cli.simulate import Wish, show

    wish = Wish(model, gpu, gpus, hours, seed, days, setting or (), policies, sweep, csv, plot)
    show(wish, as_json=as_json)


@app.command()
def fetch(
    model: Annotated[
        str, typer.Argument(help="Name from `headrace plan`, or owner/name of a hub's repository.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make. Default: where `headrace up` looks.")
    ] = None,
    place: Annotated[
        str | None,
        typer.Option("--from", help="Mirror's address, or a folder. Default: HF_ENDPOINT or the hub."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit. Default: the pinned one.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help='"tokenizer": what a gateway reads, without the weights.')
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another fetch of it is at work there.")
    ] = False,
) -> None:
    """Stage a checkpoint: resumable, every file compared with the index, complete or absent. HF_TOKEN is used.

    A pinned commit that is there already is checked, and its hub not asked.

    Examples:  headrace fetch gpt-oss-20b   |   headrace fetch gpt-oss-120b --to /models/120b --from /mnt/usb/120b
    """
    from services.cli.fetch import Wish, run

    run(Wish(model, to, place, revision, only, wait))


@app.command()
def doctor(
    as_json: Json = False,
    port: Annotated[int, typer.Option(min=0, max=65533, help="First of the three ports to check.")] = 50051,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Check the nodes of a running Ray cluster and the store instead."),
    ] = False,
) -> None:
    """Check this machine for what a newcomer gets wrong, or a cluster. Exits 1 if a check fails.

    Example, in the pod of Ray's head, container ray-head:  headrace doctor --cluster
    """
    if cluster:
        from services.cli.survey import show as survey

        survey(as_json=as_json)
        return
    from services.cli.doctor import show

    show(port, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    try:
        app(args=arguments)
    except CliError as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain at its exit too.
        sys.stdout = None
        sys.exit(FAILED)
    sys.exit(0)
