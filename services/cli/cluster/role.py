"""`headrace cluster role`: the Roles that these commands need, and no more."""

from typing import Any

import yaml

Rule = dict[str, list[str]]
READ = ["get", "list"]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


# `pods/proxy` reaches every port of a pod that a network policy leaves open to the API server: here, their metrics.
STATUS = [
    _rule("", ["pods"], READ),
    _rule("", ["pods/proxy"], ["get"]),
    _rule("apps", ["deployments", "statefulsets"], READ),
    _rule("ray.io", ["rayservices", "rayclusters"], READ),
    _rule("autoscaling", ["horizontalpodautoscalers"], READ),
    _rule("policy", ["poddisruptionbudgets"], READ),
    _rule("keda.sh", ["scaledobjects"], READ),
    _rule("cert-manager.io", ["certificates"], READ),
]
DRAIN = [_rule("", ["pods/eviction"], ["create"])]
BUNDLE = [
    _rule("", ["pods/log"], ["get"]),
    _rule("", ["events", "configmaps", "services"], READ),
    _rule("batch", ["jobs"], READ),
    _rule("networking.k8s.io", ["networkpolicies"], READ),
]
SECRETS = [_rule("", ["secrets"], ["list"])]
NODES = _rule("", ["nodes"], READ)
CORDON = _rule("", ["nodes"], ["patch"])


def show(namespace: str, user: str, *, drain: bool, bundle: bool, secrets: bool) -> None:
    found = roles(namespace, user, drain=drain, bundle=bundle, secrets=secrets)
    print(yaml.safe_dump_all(found, sort_keys=False), end="")


def roles(
    namespace: str, user: str, *, drain: bool = False, bundle: bool = False, secrets: bool = False
) -> list[dict[str, Any]]:
    """A Role for the release's namespace, a ClusterRole for nodes, and their bindings."""
    rules = STATUS + (DRAIN if drain else []) + (BUNDLE if bundle else []) + (SECRETS if secrets else [])
    home = {"name": "headrace-cluster-command", "namespace": namespace}
    nodes = {"name": f"headrace-cluster-command-{namespace}"}
    return [
        _object("Role", home) | {"rules": rules},
        _object("RoleBinding", home) | _binding("Role", home["name"], user),
        _object("ClusterRole", nodes) | {"rules": [NODES, CORDON] if drain else [NODES]},
        _object("ClusterRoleBinding", nodes) | _binding("ClusterRole", nodes["name"], user),
    ]


def _object(kind: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": dict(metadata)}


def _binding(kind: str, name: str, user: str) -> dict[str, Any]:
    place, _, account = user.rpartition(":")
    who: dict[str, str] = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    if place:
        who = {"kind": "ServiceAccount", "name": account, "namespace": place}
    return {
        "subjects": [who],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
    }
