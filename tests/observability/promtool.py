"""promtool on the rules as they are: whether an alert fires on given series at a given minute."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.observability.rules import RULES

PROMTOOL = Path(sys.executable).with_name("promtool")
UNITS = {"m": 1, "h": 60, "d": 1440}


def minutes(text: str) -> int:
    """Of a duration such as 30m or 1h."""
    return int(text[:-1]) * UNITS[text[-1]]


def promtool(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PROMTOOL, *words], text=True, capture_output=True, timeout=60)


def check(alert: str, looks: list[tuple[dict[str, str], int, dict[str, str] | None]], folder: Path) -> str:
    """Each look: series, a minute, and the labels of the one alert that fires then, or None if it is silent.
    Empty if promtool finds it so, else what it says."""
    document = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": "1m",
        "tests": [_test(alert, *look) for look in looks],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(document))
    run = promtool("test", "rules", file)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def _test(alert: str, series: dict[str, str], minute: int, labels: dict[str, str] | None) -> dict[str, Any]:
    firing = {"__name__": "ALERTS", "alertname": alert, "alertstate": "firing", **(labels or {})}
    written = ", ".join(f'{name}="{value}"' for name, value in firing.items() if name != "__name__")
    sample = {"labels": f"ALERTS{{{written}}}", "value": 1}
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": str(values)} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{alert}", alertstate="firing"}}',
                "eval_time": f"{minute}m",
                "exp_samples": [] if labels is None else [sample],
            }
        ],
    }


def metric(series: str) -> str:
    return re.split(r"[{ ]", series, maxsplit=1)[0]
