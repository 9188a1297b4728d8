"""Schemas of values that have Kubernetes' own shapes, told by the name of their key."""

from typing import Any

from deploy.chart.comments import Value

Schema = dict[str, Any]

STRINGS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
FREE: Schema = {"type": "object", "additionalProperties": True}
QUANTITY: Schema = {
    "type": ["string", "number"],
    "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$",
}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}


def fields(**properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}

RESOURCES = fields(limits=QUANTITIES, requests=QUANTITIES, claims=listed(FREE))
TOLERATION = fields(
    key=TEXT,
    operator={"enum": ["Exists", "Equal", "Lt", "Gt"]},
    value=TEXT,
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
    tolerationSeconds={"type": "integer"},
)
AFFINITY = fields(nodeAffinity=FREE, podAffinity=FREE, podAntiAffinity=FREE)
PROBE = fields(
    initialDelaySeconds=COUNT,
    periodSeconds=COUNT,
    timeoutSeconds=COUNT,
    failureThreshold=COUNT,
    successThreshold=COUNT,
)
VARIABLE: Schema = fields(name=TEXT, value=TEXT, valueFrom=FREE) | {"required": ["name"]}
REFERENCE: Schema = fields(name=TEXT) | {"required": ["name"]}

CIDR: Schema = {"type": "string", "pattern": r"^[0-9a-fA-F.:]+/\d{1,3}$"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}

# Keys that mean the same wherever they stand.
BY_NAME: dict[str, Schema] = {
    "resources": RESOURCES,
    "affinity": AFFINITY,
    **dict.fromkeys(("nodeSelector", "headNodeSelector"), STRINGS),
    **dict.fromkeys(("annotations", "podAnnotations", "commonAnnotations"), STRINGS),
    **dict.fromkeys(("labels", "podLabels", "commonLabels"), STRINGS),
    **dict.fromkeys(("tolerations", "headTolerations"), listed(TOLERATION)),
    **dict.fromkeys(("securityContext", "podSecurityContext"), FREE),
    **dict.fromkeys(("extraVolumes", "extraVolumeMounts", "from", "to"), listed(FREE)),
    **dict.fromkeys(("extraIngress", "extraEgress"), listed(FREE)),
    **dict.fromkeys(("hostnames", "dnsNames"), listed(TEXT)),
    **dict.fromkeys(("cidrs", "except", "loadBalancerSourceRanges"), listed(CIDR)),
    "extraEnv": listed(VARIABLE),
    "imagePullSecrets": listed(REFERENCE),
    "parentRefs": listed({"type": "object", "required": ["name"]}),
    "ports": listed(PORT) | {"minItems": 1},
}
SIZES = {"size", "tmpSize", "modelsSize", "shm"}


def of(value: Value) -> Schema:
    """The shape of a value by its key, that of `resources` for its parts; {} where the key tells nothing."""
    if value.name in SIZES and isinstance(value.default, str):
        return {
            "type": "string",
            "pattern": QUANTITY["pattern"] if value.default else f"^$|{QUANTITY['pattern']}",
        }
    if value.path[-2:-1] == ("resources",):
        return RESOURCES
    return BY_NAME.get(value.name, {}) if isinstance(value.default, dict | list) else {}
