"""The kinds that the server knows: built-in ones that charts and clients use, and those of the operators beside us."""

from dataclasses import dataclass

# Groups whose kinds an operator brings along.
CUSTOM = (
    "ray.io",
    "monitoring.coreos.com",
    "gateway.networking.k8s.io",
    "cert-manager.io",
    "keda.sh",
    "inference.networking.k8s.io",
)


@dataclass(frozen=True, slots=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = True
    scale: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def custom(self) -> bool:
        """Of a CustomResourceDefinition, and not of the server itself."""
        return self.group in CUSTOM

    @property
    def resource(self) -> str:
        """As in error messages: deployments.apps."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _plural(kind: str) -> str:
    name = kind.lower()
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "ss")) else f"{name}s"


# By group and version; a kind is written Kind(short name), ! for cluster-scoped, ^ for a scale subresource, - for none
# of status.
_TABLE = {
    "v1": "Namespace(ns)! Node(no)! PersistentVolume(pv)! Pod(po) Service(svc) ConfigMap(cm)- Secret-"
    " ServiceAccount(sa)- PersistentVolumeClaim(pvc) Event(ev)- LimitRange(limits)- ResourceQuota(quota)"
    " ReplicationController(rc)^",
    "apps/v1": "Deployment(deploy)^ ReplicaSet(rs)^ StatefulSet(sts)^ DaemonSet(ds) ControllerRevision-",
    "batch/v1": "Job CronJob(cj)",
    "autoscaling/v2": "HorizontalPodAutoscaler(hpa)",
    "policy/v1": "PodDisruptionBudget(pdb)",
    "networking.k8s.io/v1": "NetworkPolicy(netpol)- Ingress(ing) IngressClass!-",
    "rbac.authorization.k8s.io/v1": "Role- RoleBinding- ClusterRole!- ClusterRoleBinding!-",
    "coordination.k8s.io/v1": "Lease-",
    "discovery.k8s.io/v1": "EndpointSlice-",
    "storage.k8s.io/v1": "StorageClass(sc)!-",
    "scheduling.k8s.io/v1": "PriorityClass(pc)!-",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition(crd)!",
    "ray.io/v1": "RayService RayCluster RayJob",
    "monitoring.coreos.com/v1": "ServiceMonitor(smon) PodMonitor(pmon) PrometheusRule(promrule)",
    "gateway.networking.k8s.io/v1": "GatewayClass(gc)! Gateway(gtw) GRPCRoute HTTPRoute BackendTLSPolicy(btlspolicy)"
    " ReferenceGrant(refgrant)-",
    "cert-manager.io/v1": "Certificate(cert) Issuer ClusterIssuer!",
    "keda.sh/v1alpha1": "ScaledObject(so) TriggerAuthentication(ta)- ClusterTriggerAuthentication(cta)!-",
    "inference.networking.k8s.io/v1": "InferencePool(infpool)",
}


def _kind(api_version: str, written: str) -> Kind:
    group, _, version = api_version.rpartition("/")
    flags = {flag for flag in "!^-" if flag in written}
    name, _, short = written.rstrip("!^-").rstrip(")").partition("(")
    plural = _plural(name)
    shorts = (short,) if short else ()
    return Kind(group, version, name, plural, "!" not in flags, shorts, "-" not in flags, "^" in flags)


def builtin() -> list[Kind]:
    return [_kind(version, written) for version, line in _TABLE.items() for written in line.split()]


class Kinds:
    """The registry: by path and by name."""

    def __init__(self, kinds: list[Kind] | None = None) -> None:
        self.all = builtin() if kinds is None else kinds

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        return next((k for k in self.all if (k.group, k.version, k.plural) == (group, version, plural)), None)

    def by_name(self, api_version: str, kind: str) -> Kind:
        return next(k for k in self.all if (k.api_version, k.kind) == (api_version, kind))

    def of(self, kind: str) -> Kind:
        return next(k for k in self.all if k.kind == kind)

    def groups(self) -> dict[str, list[str]]:
        """Versions of each group but the core one."""
        found: dict[str, list[str]] = {}
        for kind in self.all:
            if kind.group and kind.version not in found.setdefault(kind.group, []):
                found[kind.group].append(kind.version)
        return found
