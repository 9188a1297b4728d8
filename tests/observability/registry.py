"""Which series there can be, by name, and the labels that each has."""

import importlib.util
import re
from pathlib import Path

from services.telemetry.names import all_names

# Of Prometheus and of service discovery; every series has them.
TARGET = {"namespace", "job", "instance", "pod"}
# redis_exporter's, of INFO. It is none of ours, so these stand for its documentation.
REDIS_EXPORTER = {
    "redis_up",
    "redis_aof_last_write_status",
    "redis_connected_slaves",
    "redis_memory_used_bytes",
    "redis_memory_max_bytes",
    "redis_evicted_keys_total",
    "redis_commands_processed_total",
    "redis_connected_clients",
}
DECLARED = re.compile(r'_(gauge|counter|histogram)_cls\(\s*name="vllm:(\w+)"')
FORMS = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def series() -> dict[str, set[str]]:
    """Labels by name, those of the target included."""
    known = {name.name: set(name.labels) | TARGET for name in all_names()}
    known |= {"up": set(TARGET), **{name: set(TARGET) for name in REDIS_EXPORTER}}
    for name in vllm():
        labels = TARGET | {"model_name", "engine", *(["le"] if name.endswith("_bucket") else [])}
        known |= {f"vllm:{name}": labels, f"ray_vllm_{name}": labels | {"ReplicaId"}}
    return known


def vllm() -> set[str]:
    """What the installed vLLM exports, read off its source: importing it takes seconds."""
    spec = importlib.util.find_spec("vllm")
    assert spec and spec.submodule_search_locations
    text = Path(spec.submodule_search_locations[0], "v1/metrics/loggers.py").read_text()
    return {name + form for kind, name in DECLARED.findall(text) for form in FORMS[kind]}
