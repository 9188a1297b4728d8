"""A Prometheus of our own: started against a stack on this machine, and asked over its HTTP API."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).with_name("rules")
NAMESPACE = "local"  # what stands for a Kubernetes namespace in the metrics of a local stack


class Unanswered(Exception):
    """Prometheus does not answer, or refuses the question; the message says why."""


@dataclass(frozen=True, slots=True)
class Api:
    """`address` is host:port."""

    address: str

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of a query. Raises Unanswered."""
        found = self._get("query", query=expr)
        return list(found["result"]) if found["resultType"] == "vector" else []

    def targets(self) -> list[dict[str, Any]]:
        return list(self._get("targets", state="active")["activeTargets"])

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **words: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise Unanswered(json.load(error).get("error", str(error))) from error
        except (OSError, ValueError) as error:
            raise Unanswered(f"Prometheus at {self.address} does not answer: {error}") from error


def configuration(jobs: dict[str, str], interval: float, rules: Sequence[Path]) -> str:
    """Of Prometheus: a target for each job, `interval` seconds between two scrapes and two evaluations."""
    every = f"{round(interval * 1000)}ms"
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [{"targets": [target], "labels": {"namespace": NAMESPACE}}],
                }
                for job, target in jobs.items()
            ],
        },
        sort_keys=False,
    )
