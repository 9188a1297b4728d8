"""Schemas of values that have Kubernetes' own shapes, told by the name of their key."""

from typing import Any

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

BY_NAME: dict[str, Schema] = {
    "resources": RESOURCES,
    "nodeSelector": STRINGS,
    "headNodeSelector": STRINGS,
    "tolerations": listed(TOLERATION),
    "headTolerations": listed(TOLERATION),
    "affinity": AFFINITY,
    "topologySpread": listed(FREE),
    "topologySpreadConstraints": listed(FREE),
    "annotations": STRINGS,
    "podAnnotations": STRINGS,
    "serviceAnnotations": STRINGS,
    "labels": STRINGS,
    "podLabels": STRINGS,
    "commonLabels": STRINGS,
    "commonAnnotations": STRINGS,
    "matchLabels": STRINGS,
    "extraEnv": listed(VARIABLE),
    "env": listed(VARIABLE),
    "imagePullSecrets": listed(REFERENCE),
    "securityContext": FREE,
    "podSecurityContext": FREE,
    "extraVolumes": listed(FREE),
    "extraVolumeMounts": listed(FREE),
}
