"""What the code's own settings say about values of the same meaning: ranges, types, descriptions."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from cluster.engine.launch import VllmSettings
from cluster.scaling.settings import ScalingSettings
from cluster.serving.settings import ReplicaSettings
from services.gateway.settings import GatewaySettings

Schema = dict[str, Any]

# Fields of a gateway that the chart computes from other values, or that are secrets: naming them twice is refused.
COMPUTED = {
    "listen",
    "health_listen",
    "metrics_listen",
    "processes",
    "tls",
    "redis_url",
    "master_key",
    "key_pepper",
    "link_token",
    "models",
    "drain_delay",
    "drain_grace",
    "otlp_endpoint",
    "trace_ratio",
}
# Keywords that say what is allowed; titles and defaults stand in the code and in values.yaml.
LIMITS = ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength")


class Limits(GenerateJsonSchema):
    """Without a word on defaults that JSON cannot say: they are not asked for."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012


def gateway() -> tuple[Schema, dict[str, Schema]]:
    """The schema of `gateway.settings`, and the definitions that it refers to."""
    schema = GatewaySettings.model_json_schema()
    fields = {name: plain(each) for name, each in schema["properties"].items() if name not in COMPUTED}
    needed = {name: plain(each) for name, each in schema.get("$defs", {}).items() if _refers(fields, name)}
    return {"type": "object", "additionalProperties": False, "properties": fields}, needed


def plain(schema: Any) -> Any:
    """Without titles and defaults: the defaults that count are those of the code that reads the setting."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: plain(value) for key, value in schema.items() if not _only_told(key, value)}


def _only_told(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or key == "default"


def _refers(node: Any, name: str) -> bool:
    if isinstance(node, dict):
        return node.get("$ref") == f"#/$defs/{name}" or any(_refers(each, name) for each in node.values())
    return isinstance(node, list) and any(_refers(each, name) for each in node)


def of_model(path: tuple[str, ...]) -> Schema:
    """The limits of the setting that a model's value becomes; {} if of none. `path` is camelCase, within the entry."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in path[-1])
    for settings in SECTIONS.get(path[:-1], ()):
        if snake in settings.model_fields:
            schema = settings.model_json_schema(schema_generator=Limits)["properties"][snake]
            parts = schema.get("anyOf", [schema])
            known = [{key: each[key] for key in LIMITS if key in each} for each in parts]
            return known[0] if len(known) == 1 else {"anyOf": known}
    return {}


# What reads an entry's own values, and those of its sections.
SECTIONS: dict[tuple[str, ...], tuple[type[BaseModel], ...]] = {
    (): (VllmSettings, ReplicaSettings),
    ("autoscaling",): (ScalingSettings,),
}
