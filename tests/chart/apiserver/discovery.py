"""What the server says of itself: versions, groups, resources, and as much OpenAPI as clients insist on."""

from tests.chart.apiserver.failure import Object
from tests.chart.apiserver.kinds import Kind, Kinds

VERSION = {
    "major": "1",
    "minor": "37",
    "gitVersion": "v1.37.0",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-08-01T00:00:00Z",
    "goVersion": "go1.27.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}
VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
SCHEMAS = "io.k8s."
POD_PARTS = {
    "log": ("Pod", ["get"]),
    "eviction": ("Eviction", ["create"]),
    "proxy": ("PodProxyOptions", ["get"]),
}


def _parts(kind: Kind) -> dict[str, tuple[str, list[str]]]:
    parts = {"status": (kind.kind, ["get", "patch", "update"])} if kind.status else {}
    parts |= {"scale": ("Scale", ["get", "patch", "update"])} if kind.scale else {}
    return parts | (POD_PARTS if kind.kind == "Pod" else {})


def classic(kinds: Kinds, group: str, version: str) -> Object:
    found: list[Object] = []
    for kind in (k for k in kinds.all if (k.group, k.version) == (group, version)):
        named = {"singularName": kind.kind.lower(), "namespaced": kind.namespaced}
        short = {"shortNames": list(kind.short)} if kind.short else {}
        found.append({"name": kind.plural, "kind": kind.kind, "verbs": VERBS, **named, **short})
        found += [
            {"name": f"{kind.plural}/{part}", "kind": of, "verbs": verbs, **named, "singularName": ""}
            | ({"group": "autoscaling", "version": "v1"} if of == "Scale" else {})
            | ({"group": "policy", "version": "v1"} if of == "Eviction" else {})
            for part, (of, verbs) in _parts(kind).items()
        ]
    written = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": written, "resources": found}


def groups(kinds: Kinds) -> Object:
    found = [_group(name, versions) for name, versions in kinds.groups().items()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def group(kinds: Kinds, name: str) -> Object:
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, kinds.groups()[name])}


def _group(name: str, versions: list[str]) -> Object:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def aggregated(kinds: Kinds, named: dict[str, list[str]]) -> Object:
    """Everything at once; `named` are groups with their versions, the core one having the name ''."""
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [
                {"version": version, "freshness": "Current", "resources": _resources(kinds, name, version)}
                for version in versions
            ],
        }
        for name, versions in named.items()
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _resources(kinds: Kinds, group: str, version: str) -> list[Object]:
    found = []
    for kind in (k for k in kinds.all if (k.group, k.version) == (group, version)):
        parts = [
            {
                "subresource": part,
                "responseKind": {"group": kind.group, "version": kind.version, "kind": of},
                "verbs": verbs,
            }
            for part, (of, verbs) in _parts(kind).items()
        ]
        found.append(
            {
                "resource": kind.plural,
                "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                "scope": "Namespaced" if kind.namespaced else "Cluster",
                "singularResource": kind.kind.lower(),
                "verbs": VERBS,
            }
            | ({"shortNames": list(kind.short)} if kind.short else {})
            | ({"subresources": parts} if parts else {})
        )
    return found


def openapi_index(kinds: Kinds) -> Object:
    paths = {"api/v1"} | {f"apis/{g}/{v}" for g, versions in kinds.groups().items() for v in versions}
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash=0"} for path in sorted(paths)}}


def openapi_of(kinds: Kinds, path: str) -> Object:
    """Enough for a client to see that writes are validated here, and for `kubectl explain` to find a kind."""
    group, _, version = path.removeprefix("apis/").removeprefix("api/").rpartition("/")
    mine = [k for k in kinds.all if (k.group, k.version) == (group, version)]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": {item: each for kind in mine for item, each in _paths(kind, path).items()},
        "components": {"schemas": {_schema_name(kind): _schema(kind) for kind in mine}},
    }


def _schema_name(kind: Kind) -> str:
    return f"{SCHEMAS}{kind.group or 'core'}.{kind.version}.{kind.kind}"


def _gvk(kind: Kind) -> Object:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _schema(kind: Kind) -> Object:
    text, anything = {"type": "string"}, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "type": "object",
        "description": f"{kind.kind} as this server keeps it.",
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": anything,
            "spec": anything,
            "status": anything,
        },
        "x-kubernetes-preserve-unknown-fields": True,
        "x-kubernetes-group-version-kind": [_gvk(kind)],
    }


def _paths(kind: Kind, path: str) -> Object:
    names = ("dryRun", "fieldManager", "fieldValidation", "force")
    asked = [{"name": n, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for n in names]
    body = {"schema": {"$ref": f"#/components/schemas/{_schema_name(kind)}"}}
    answer = {"200": {"description": "OK", "content": {"application/json": body}}}
    operation = {"parameters": asked, "responses": answer, "x-kubernetes-group-version-kind": _gvk(kind)}
    within = "namespaces/{namespace}/" if kind.namespaced else ""
    return {f"/{path}/{within}{kind.plural}/{{name}}": {"get": operation, "patch": operation}}
