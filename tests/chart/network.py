"""Which connections NetworkPolicies let through, as Kubernetes defines it; of what plugins may do, the strictest: an
address of a rule (ipBlock) never means a pod, as with Cilium."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from tests.chart.helm import NAMESPACE, Object
from tests.chart.manifests import Manifests, Pod, matches

NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod here, a pod in another namespace, or, with no labels, an address outside."""

    labels: Mapping[str, str] | None = None
    namespace: Mapping[str, str] = field(default_factory=lambda: {NAME: NAMESPACE})
    address: str = "10.244.7.7"
    ports: tuple[Object, ...] = ()

    @property
    def ours(self) -> bool:
        return self.labels is not None and self.namespace.get(NAME) == NAMESPACE


def end(pod: Pod) -> End:
    return End(pod.labels, ports=tuple(pod.ports()))


def outside(address: str) -> End:
    return End(None, {}, address)


def elsewhere(namespace: str, **labels: str) -> End:
    return End(labels, {NAME: namespace})


def allowed(m: Manifests, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is opened: its source may send and its target may receive."""
    sends = _open(_policies(m, source, "Egress"), "egress", "to", target, target, port, protocol)
    receives = _open(_policies(m, target, "Ingress"), "ingress", "from", source, target, port, protocol)
    return sends and receives


def _policies(m: Manifests, side: End, direction: str) -> list[Object]:
    """The specs that isolate `side` in a direction; none: it is open."""
    if not side.ours or side.labels is None:
        return []
    specs = [each["spec"] for each in m.of("NetworkPolicy")]
    return [
        each
        for each in specs
        if direction in each["policyTypes"] and matches(each["podSelector"], side.labels)
    ]


def _open(
    specs: list[Object], rules: str, peers: str, other: End, target: End, port: int, protocol: str
) -> bool:
    return not specs or any(
        _from_peer(rule.get(peers), other) and _to_port(rule.get("ports"), target, port, protocol)
        for spec in specs
        for rule in spec.get(rules) or ()
    )


def _from_peer(peers: list[Object] | None, other: End) -> bool:
    return not peers or any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: Object, other: End) -> bool:
    if block := peer.get("ipBlock"):
        if other.labels is not None:
            return False
        inside = ip_address(other.address) in ip_network(block["cidr"])
        return inside and not any(
            ip_address(other.address) in ip_network(each) for each in block.get("except", ())
        )
    if other.labels is None:
        return False
    near = matches(peer["namespaceSelector"], other.namespace) if "namespaceSelector" in peer else other.ours
    return near and ("podSelector" not in peer or matches(peer["podSelector"], other.labels))


def _to_port(ports: list[Object] | None, target: End, port: int, protocol: str) -> bool:
    names = {each.get("name"): each["containerPort"] for each in target.ports}
    return not ports or any(
        names.get(each["port"], each["port"]) == port and each.get("protocol", "TCP") == protocol
        for each in ports
    )
