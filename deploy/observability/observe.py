"""A real Prometheus beside the stack of `headrace up`: `make observe`, `make observe-down`.

python -m deploy.observability.observe [--detach] [--port N] [--interval SECONDS]
python -m deploy.observability.observe --down
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local import probes
from deploy.local.home import Home, write_private
from deploy.local.ports import Ports
from deploy.local.processes import end, find, last_words, start
from deploy.local.record import MARK, Process, Stack
from deploy.observability.prometheus import RULES, Api, Unanswered, configuration

HOST = "127.0.0.1"
PORT = 9090  # Prometheus' own; another one if that is taken
RECORD = "observe.json"
GRACE = 10.0  # seconds for Prometheus to end by itself
PATIENCE = 30.0  # seconds for it to start, and for targets and rules to be looked at once


class Refused(Exception):
    """What was asked cannot be done; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Observer:
    """A Prometheus that was started here: `folder` has its configuration and its data."""

    process: Process
    address: str
    folder: str

    @classmethod
    def load(cls, root: Path) -> "Observer | None":
        """None unless it runs."""
        try:
            fields = json.loads((root / RECORD).read_text())
            observer = cls(Process(**fields["process"]), fields["address"], fields["folder"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return observer if find(observer.process) else None


def begin(home: Home, env: Mapping[str, str], port: int, interval: float) -> Observer:
    """Starts Prometheus against the recorded stack. Raises Refused."""
    stack = Stack.load(home.record)
    if stack is None or not stack.complete:
        raise Refused("no stack is up on this machine: run `make up` first")
    if running := Observer.load(home.root):
        raise Refused(f"it runs already, at http://{running.address}: `make observe-down` stops it")
    binary = Path(sys.executable).with_name("prometheus")
    if not binary.exists():
        raise Refused("there is no prometheus beside python: run `deploy/prometheus`")
    folder = Path(stack.scratch, "observe")  # goes with the stack, if it is not removed before
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    address = f"{HOST}:{_free(port)}"
    jobs = {"headrace-gateway": stack.metrics, "headrace-engine": stack.ray_metrics}
    write_private(folder / "prometheus.yml", configuration(jobs, interval, sorted(RULES.glob("*.yaml"))))
    argv = [
        str(binary), f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    # With the stack's mark `headrace down` ends it too.
    process = start("prometheus", argv, {**env, MARK: stack.id}, home.logs / "prometheus.log", folder)
    observer = Observer(process, address, str(folder))
    write_private(home.root / RECORD, json.dumps(asdict(observer)))
    return observer


def _free(port: int) -> int:
    """The port, or another one if somebody has it."""
    with Ports() as ports:
        try:
            return ports.keep(port)
        except OSError:
            return ports.keep()


def _await(observer: Observer, ready: Callable[[], bool]) -> None:
    try:
        probes.wait_for(ready, observer.process, PATIENCE)
    except probes.NotReady as error:
        why = last_words(Path(observer.process.log))
        raise Refused(f"Prometheus: {error}: {why}; its log is {observer.process.log}") from error


def finish(home: Home) -> bool:
    """Ends exactly the Prometheus that was started here. False if none ran."""
    observer = Observer.load(home.root)
    ended = observer is not None and end(observer.process, GRACE)
    if observer is not None:
        shutil.rmtree(observer.folder, ignore_errors=True)
    (home.root / RECORD).unlink(missing_ok=True)
    return ended


def seen(api: Api) -> bool:
    """Every target has been scraped, and every rule evaluated, once. Prometheus takes 5 s to have targets at all."""
    targets, rules = api.targets(), api.rules()
    return (
        bool(targets)
        and all(t["health"] != "unknown" for t in targets)
        and all(r["health"] != "unknown" for r in rules)
    )


def report(api: Api) -> list[str]:
    targets, rules = api.targets(), api.rules()
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    lines = [f"Prometheus is at http://{api.address}"]
    for target in targets:
        error = f": {target['lastError']}" if target["lastError"] else ""
        lines.append(
            f"  target  {target['health']:<5} {target['labels']['job']:<17} {target['scrapeUrl']}{error}"
        )
    lines.append(f"  rules   {len(rules) - len(alerts)} recording, {len(alerts)} alerts")
    lines += [
        f"  rule    {rule['name']} fails: {rule['lastError']}" for rule in rules if rule["health"] == "err"
    ]
    told = [f"  alert   {rule['state']:<8} {rule['name']}" for rule in alerts if rule["state"] != "inactive"]
    return lines + (told or ["  alert   none fires"])


def run(home: Home, env: Mapping[str, str], port: int, interval: float, *, detach: bool) -> None:
    """Until it is stopped, or with `detach` until it runs. Raises Refused, Unanswered, KeyboardInterrupt."""
    observer, stays = begin(home, env, port, interval), False
    api = Api(observer.address)
    try:
        _await(observer, api.ready)
        _await(observer, lambda: seen(api))
        print("\n".join(report(api)), flush=True)
        stays = detach
        print(
            f"{'' if detach else 'Ctrl-C stops it; so does '}`make observe-down`{' stops it' * detach}.",
            flush=True,
        )
        while not detach and find(observer.process):
            time.sleep(0.5)
    finally:
        if not stays:
            finish(home)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m deploy.observability.observe")
    parser.add_argument("--down", action="store_true", help="stop the one that runs")
    parser.add_argument("--detach", action="store_true", help="return once it runs")
    parser.add_argument("--port", type=int, default=PORT, help="0: any that is free")
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between two scrapes")
    asked, home = parser.parse_args(), Home.of(os.environ)
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a shell's background job begins with the first one ignored
        signal.signal(number, signal.default_int_handler)
    if asked.down:
        print("Stopped Prometheus." if finish(home) else "No Prometheus of `make observe` ran.")
        return
    try:
        run(home, os.environ, asked.port, asked.interval, detach=asked.detach)
    except (Refused, Unanswered) as error:
        sys.exit(f"observe: {error}")
    except KeyboardInterrupt:
        print("\nStopped Prometheus.")


if __name__ == "__main__":
    main()
