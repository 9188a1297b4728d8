"""Rendered manifests as a kubelet reads them: a container's command, environment, mounts and rights."""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pods.sandbox import Container, Mount

REFERENCE = re.compile(r"\$\((\w+)\)")


@dataclass(slots=True)
class Manifests:
    """`claims` maps the names of persistent volume claims to folders of this machine."""

    objects: list[dict[str, Any]]
    claims: Mapping[str, Path]

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> dict[str, Any]:
        found = [each for each in self.all(kind) if name in (None, each["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} objects of kind {kind}, {name}"
        return found[0]

    def secret(self, name: str) -> dict[str, str]:
        found = self.one("Secret", name)
        data = {key: base64.b64decode(text).decode() for key, text in found.get("data", {}).items()}
        return data | found.get("stringData", {})

    def files(self, volume: Mapping[str, Any]) -> dict[str, str] | None:
        """The content of a volume that is made of files; None for one that starts empty."""
        if "configMap" in volume:
            return dict(self.one("ConfigMap", volume["configMap"]["name"])["data"])
        if "secret" in volume:
            return self.secret(volume["secret"]["secretName"])
        if "projected" in volume:
            parts = [self.files(source) or {} for source in volume["projected"]["sources"]]
            return {name: text for part in parts for name, text in part.items()}
        return None


@dataclass(slots=True)
class PodReader:
    """One pod: its volumes are folders under `folder`, made once and shared by its containers."""

    manifests: Manifests
    spec: Mapping[str, Any]
    folder: Path
    fields: Mapping[str, str]  # what fieldRef may ask for

    def container(
        self, spec: Mapping[str, Any], argv: Iterable[str] | None = None, env: Mapping[str, str] | None = None
    ) -> Container:
        """`argv` and `env` are what an operator adds to a pod that it makes."""
        environment = self.environment(spec) | dict(env or {})
        given = list(argv) if argv is not None else [*spec.get("command", ()), *spec.get("args", ())]
        context = {**self.spec.get("securityContext", {}), **spec.get("securityContext", {})}
        user = context.get("runAsUser")
        mounts = [self.mount(each, user) for each in spec.get("volumeMounts", ())]
        memory = {
            each["name"] for each in self.spec.get("volumes", ()) if "Memory" in str(each.get("emptyDir"))
        }
        has_shm = any(
            each["mountPath"] == "/dev/shm" and each["name"] in memory
            for each in spec.get("volumeMounts", ())
        )
        return Container(
            name=spec["name"],
            argv=[expanded(word, environment) for word in given],
            env=environment,
            mounts=[each for each in mounts if each.target != "/dev/shm"],
            user=user,
            read_only_root=bool(context.get("readOnlyRootFilesystem")),
            **({"shm_bytes": 2 << 30} if has_shm else {}),
        )

    def environment(self, spec: Mapping[str, Any]) -> dict[str, str]:
        found: dict[str, str] = {}
        for source in spec.get("envFrom", ()):
            found |= (
                self.manifests.files(
                    {"secret": {"secretName": source["secretRef"]["name"]}}
                    if "secretRef" in source
                    else {"configMap": source["configMapRef"]}
                )
                or {}
            )
        for each in spec.get("env", ()):
            value = each["value"] if "value" in each else self.value(each.get("valueFrom", {}))
            if value is not None:
                found[each["name"]] = expanded(value, found)
        return found

    def value(self, source: Mapping[str, Any]) -> str | None:
        if "fieldRef" in source:
            return self.fields[source["fieldRef"]["fieldPath"]]
        if "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            return str(self.manifests.one("ConfigMap", reference["name"])["data"][reference["key"]])
        reference = source["secretKeyRef"]
        found = self.manifests.secret(reference["name"])
        if reference.get("optional") and reference["key"] not in found:
            return None
        return found[reference["key"]]

    def mount(self, spec: Mapping[str, Any], user: int | None) -> Mount:
        volume = next(each for each in self.spec["volumes"] if each["name"] == spec["name"])
        source = self.volume(volume, user)
        return Mount(source / spec.get("subPath", ""), spec["mountPath"], bool(spec.get("readOnly")))

    def volume(self, volume: Mapping[str, Any], user: int | None) -> Path:
        if "persistentVolumeClaim" in volume:
            return self.manifests.claims[volume["persistentVolumeClaim"]["claimName"]]
        folder = self.folder / "volumes" / volume["name"]
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        for name, text in (self.manifests.files(volume) or {}).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o444)
        return folder


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """$(NAME) becomes the variable's value, as a kubelet does; an unknown one stays."""
    return REFERENCE.sub(lambda found: environment.get(found[1], found[0]), text)


def selected(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in selector.items())


def hosts(manifests: Manifests, pods: Mapping[str, tuple[Mapping[str, str], str]]) -> dict[str, str]:
    """The names of Services and the address of the first pod that each selects. A Service with another port than its
    pods' would need a proxy, so its ports are compared."""
    found = {}
    for service in manifests.all("Service"):
        selector = service["spec"].get("selector", {})
        matching = [address for labels, address in pods.values() if selector and selected(selector, labels)]
        if matching:
            for port in service["spec"]["ports"]:
                assert port.get("targetPort", port["port"]) in (port["port"], port.get("name")), service
            found[service["metadata"]["name"]] = matching[0]
    return found


def hosts_text(names: Mapping[str, str], namespace: str) -> str:
    lines = ["127.0.0.1 localhost"]
    for name, address in names.items():
        full = f"{name}.{namespace}"
        lines.append(f"{address} {name} {full} {full}.svc {full}.svc.cluster.local")
    return "\n".join(lines) + "\n"
