"""What is referred to by name exists, or the values name it as something the cluster has."""

from collections.abc import Iterator
from typing import Any

from tests.chart.checks.selectors import name
from tests.chart.manifests import Manifests, Pod


def references_exist(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        for kind, wanted, key in _of_pod(pod):
            yield from (f"{pod.name}: {text}" for text in missing(m, kind, wanted, key))
    for item in m.objects:
        for kind, wanted, key in _of_object(item):
            yield from (f"{name(item)}: {text}" for text in missing(m, kind, wanted, key))


def missing(m: Manifests, kind: str, wanted: str, key: str | None = None) -> Iterator[str]:
    found = m.named(kind, wanted)
    if found is None:
        if wanted not in m.outside and not _made_later(m, kind, wanted):
            yield f"{kind} {wanted} is neither rendered nor named in the values"
    elif key is not None and key not in {**found.get("data", {}), **found.get("stringData", {})}:
        yield f"{kind} {wanted} has no key {key}"


def _made_later(m: Manifests, kind: str, wanted: str) -> bool:
    """Secrets of certificates come from cert-manager."""
    return kind == "Secret" and any(each["spec"]["secretName"] == wanted for each in m.of("Certificate"))


def _of_pod(pod: Pod) -> Iterator[tuple[str, str, str | None]]:
    if account := pod.spec.get("serviceAccountName"):
        yield "ServiceAccount", account, None
    for each in pod.spec.get("imagePullSecrets", ()):
        yield "Secret", each["name"], None
    for container in pod.containers:
        for variable in container.get("env", ()):
            yield from _of_source(variable.get("valueFrom", {}))
        for source in container.get("envFrom", ()):
            yield from _of_source(
                {"secretKeyRef": source.get("secretRef"), "configMapKeyRef": source.get("configMapRef")}
            )
    for volume in pod.spec.get("volumes", ()):
        yield from _of_volume(volume)
        for source in volume.get("projected", {}).get("sources", ()):
            yield from _of_volume({"configMap": source.get("configMap"), "secret": source.get("secret")})


def _of_source(source: Any) -> Iterator[tuple[str, str, str | None]]:
    for kind, key in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if (reference := source.get(key)) and not reference.get("optional"):
            yield kind, reference["name"], reference.get("key")


def _of_volume(volume: Any) -> Iterator[tuple[str, str, str | None]]:
    if reference := volume.get("configMap"):
        yield from (
            ("ConfigMap", reference["name"], item["key"]) for item in reference.get("items", [{"key": None}])
        )
    if (reference := volume.get("secret")) and not reference.get("optional"):
        wanted = reference.get("secretName", reference.get("name"))
        yield from (("Secret", wanted, item["key"]) for item in reference.get("items", [{"key": None}]))
    if claim := volume.get("persistentVolumeClaim"):
        yield "PersistentVolumeClaim", claim["claimName"], None


def _of_object(item: Any) -> Iterator[tuple[str, str, str | None]]:
    spec = item.get("spec", {})
    match item["kind"]:
        case "RayService":
            cluster = spec["rayClusterConfig"]
            if secret := cluster.get("authOptions", {}).get("secretName"):
                yield "Secret", secret, "auth_token"
            password = cluster.get("gcsFaultToleranceOptions", {}).get("redisPassword", {})
            yield from _of_source(password.get("valueFrom", {}))
        case "GRPCRoute" | "HTTPRoute":
            for rule in spec["rules"]:
                yield from (("Service", each["name"], None) for each in rule.get("backendRefs", ()))
        case "RoleBinding" | "ClusterRoleBinding":
            yield item["roleRef"]["kind"], item["roleRef"]["name"], None
            yield from ((each["kind"], each["name"], None) for each in item["subjects"])
        case "StatefulSet":
            yield "Service", spec["serviceName"], None
        case "BackendTLSPolicy":
            yield from ((each["kind"], each["name"], None) for each in spec["targetRefs"])
            trusted = spec["validation"].get("caCertificateRefs", ())
            yield from ((each["kind"], each["name"], "ca.crt") for each in trusted)


def mounts_have_volumes(m: Manifests) -> Iterator[str]:
    for pod in m.pods():
        claims = [each["metadata"]["name"] for each in pod.owner["spec"].get("volumeClaimTemplates", ())]
        volumes = {*(each["name"] for each in pod.spec.get("volumes", ())), *claims}
        mounts = [each for container in pod.containers for each in container.get("volumeMounts", ())]
        yield from (
            f"{pod.name}: mounts {each['name']}, which is no volume"
            for each in mounts
            if each["name"] not in volumes
        )
        yield from (
            f"{pod.name}: volume {each} is not mounted"
            for each in volumes - {each["name"] for each in mounts}
        )
        kept = {
            each["name"] for each in pod.spec.get("volumes", ()) if "secret" in each or "configMap" in each
        }
        for each in mounts:
            if "subPath" in each and each["name"] in kept:
                yield f"{pod.name}: {each['mountPath']} is a subPath, which never sees a renewed Secret"


def names_are_taken_once(m: Manifests) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for item in m.objects:
        key = (item["kind"], item["metadata"]["name"])
        if key in seen:
            yield f"{name(item)}: is rendered twice"
        seen.add(key)


def names_are_short_enough(m: Manifests) -> Iterator[str]:
    """63 for most. A StatefulSet's pods have its name and a hash of 11 characters in a label; of a Deployment's, the
    pods' own names have 17 more, which Kubernetes cuts."""
    longest = {"RayService": 47, "StatefulSet": 52, "Deployment": 57}
    for item in m.objects:
        if len(item["metadata"]["name"]) > longest.get(item["kind"], 63):
            yield f"{name(item)}: its name is longer than {longest.get(item['kind'], 63)}"
        for key, value in (item["metadata"].get("labels") or {}).items():
            if len(str(value)) > 63:
                yield f"{name(item)}: label {key} is longer than 63"


def objects_are_in_the_namespace(m: Manifests) -> Iterator[str]:
    from tests.chart.helm import NAMESPACE

    for item in m.objects:
        if item["metadata"].get("namespace", NAMESPACE) != NAMESPACE:
            yield f"{name(item)}: is put into {item['metadata']['namespace']}"


CHECKS = (
    references_exist,
    mounts_have_volumes,
    names_are_taken_once,
    names_are_short_enough,
    objects_are_in_the_namespace,
)
