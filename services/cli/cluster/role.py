"""`headrace cluster role`: the Roles that these commands need, and no more."""

import re
from typing import Any

import yaml

from services.cli.exits import USAGE, stop

Rule = dict[str, list[str]]
Subject = dict[str, str]
GROUP = "rbac.authorization.k8s.io"
# RFC 1123, as Kubernetes has it of namespaces, and of most other names.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", re.ASCII)
SUBDOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*", re.ASCII)
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


def show(
    namespace: str, user: str | None, account: str | None, *, drain: bool, bundle: bool, secrets: bool
) -> None:
    _check(namespace, LABEL, "--namespace")
    found = roles(namespace, _subject(user, account), drain=drain, bundle=bundle, secrets=secrets)
    print(yaml.safe_dump_all(found, sort_keys=False), end="")


def roles(
    namespace: str, who: Subject, *, drain: bool = False, bundle: bool = False, secrets: bool = False
) -> list[dict[str, Any]]:
    """A Role for the release's namespace, a ClusterRole for nodes, and their bindings."""
    rules = STATUS + (DRAIN if drain else []) + (BUNDLE if bundle else []) + (SECRETS if secrets else [])
    home = {"name": "headrace-cluster-command", "namespace": namespace}
    nodes = {"name": f"headrace-cluster-command-{namespace}"}
    return [
        _object("Role", home) | {"rules": rules},
        _object("RoleBinding", home) | _binding("Role", home["name"], who),
        _object("ClusterRole", nodes) | {"rules": [NODES, CORDON] if drain else [NODES]},
        _object("ClusterRoleBinding", nodes) | _binding("ClusterRole", nodes["name"], who),
    ]


def user_named(name: str) -> Subject:
    """Whatever the API server takes a user to be called: colons are common there, such as in oidc:alice."""
    return {"kind": "User", "name": name, "apiGroup": GROUP}


def account_named(namespace: str, name: str) -> Subject:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def _subject(user: str | None, account: str | None) -> Subject:
    if (user is None) == (account is None):
        stop(
            "whose Roles are these",
            "Give --user NAME or --account NAMESPACE:NAME, and one of them.",
            code=USAGE,
        )
    if user is not None:
        if not user.strip() or user != user.strip() or not user.isprintable():
            stop(f"--user {user!r} is nobody's name", "Give it as `kubectl auth whoami` says it.", code=USAGE)
        return user_named(user)
    place, colon, name = (account or "").partition(":")
    if not colon:
        stop(f"--account {account!r} names no namespace", "Give NAMESPACE:NAME.", code=USAGE)
    _check(place, LABEL, "the namespace of --account")
    _check(name, SUBDOMAIN, "the name of --account")
    return account_named(place, name)


def _check(name: str, form: re.Pattern[str], what: str) -> None:
    longest = 63 if form is LABEL else 253
    if not form.fullmatch(name) or len(name) > longest:
        dot = "" if form is LABEL else ", dots"
        do = f"It has lower-case letters, digits{dot} and hyphens inside, {longest} characters at most."
        stop(f"{what}, {name!r}, is no name of Kubernetes", do, code=USAGE)


def _object(kind: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": dict(metadata)}


def _binding(kind: str, name: str, who: Subject) -> dict[str, Any]:
    return {
        "subjects": [dict(who)],
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
    }
