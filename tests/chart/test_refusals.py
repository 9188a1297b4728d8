"""What the chart does not install: values that lose data, start without authentication, or contradict themselves."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.test_engines import LAYOUTS, MODEL, USUAL, over

CHART = Path(__file__).parents[2] / "helm" / "headrace"
HELM = Path(sys.executable).with_name("helm")

TRIAL = """
store: {mode: bundled}
secrets: {generate: true}
models: {tiny: {engine: sim, checkpoint: {source: made}}}
"""
PRODUCTION = """
store: {external: {urlSecret: {name: store}, gcs: {address: "store:6379", passwordSecret: {name: store}}}}
secrets: {existingSecret: {name: headrace}}
models: {big: {checkpoint: {source: pvc, claim: weights}}}
"""
LONG = "a" * 41


def rendered(tmp_path: Path, *values: str) -> subprocess.CompletedProcess[str]:
    flags = []
    for number, text in enumerate(values):
        (path := tmp_path / f"{number}.yaml").write_text(text)
        flags += ["--values", str(path)]
    # The schema refuses some of it first, in its own words.
    argv = [str(HELM), "template", "headrace", str(CHART), "--skip-schema-validation", *flags]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def objects(tmp_path: Path, *values: str) -> dict[tuple[str, str], dict[str, Any]]:
    done = rendered(tmp_path, *values)
    assert done.returncode == 0, done.stderr
    found = filter(None, yaml.safe_load_all(done.stdout))
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


@pytest.mark.parametrize("values", [TRIAL, PRODUCTION], ids=["a trial", "production"])
def test_few_values_are_enough(values: str, tmp_path: Path) -> None:
    assert ("Deployment", "headrace-gateway") in objects(tmp_path, values)


REFUSALS = [
    (TRIAL, "secrets: {generate: false}", "There are no secrets"),
    (TRIAL, "secrets: {existingSecret: {name: x}}", "exclude each other"),
    (
        TRIAL,
        "secrets: {existingSecret: {keys: {redisPassword: ''}}}",
        "does not start without a password",
    ),
    (TRIAL, "secrets: {existingSecret: {keys: {linkToken: ''}}}", "linkToken is empty"),
    (TRIAL, "store: {bundled: {persistence: {enabled: false}}}", "say store.bundled.acceptDataLoss"),
    (
        TRIAL,
        "store: {bundled: {acceptDataLoss: true, persistence: {enabled: false}}}",
        "gcsFaultTolerance",
    ),
    (TRIAL, "gateway: {autoscaling: {enabled: true}}", "use store.mode external"),
    (TRIAL, "gateway: {replicas: 1, processes: 1}", "nobody to take over"),
    (TRIAL, "store: {mode: external}", "store.external.urlSecret.name"),
    (TRIAL, "models: {tiny: {checkpoint: {source: ''}}}", "models.tiny.checkpoint.source is empty"),
    (TRIAL, "models: {a/b: {checkpoint: {source: made}}}", 'has the name "a/b"'),
    (TRIAL, "models: {Tiny: {checkpoint: {source: made}}}", "differ in case or punctuation"),
    (TRIAL, "models: {store: {checkpoint: {source: made}}}", "give the model another"),
    (TRIAL, "models: {tiny: {autoscaling: {enabled: true, minReplicas: 3}}}", "raise maxReplicas"),
    (TRIAL, f"fullnameOverride: {LONG}", "has 41 characters"),
    (TRIAL, "fullnameOverride: 1st", "does not begin with a letter"),
    (TRIAL, "tests: {model: other}", 'tests.model is "other"'),
    (PRODUCTION, "store: {external: {gcs: {address: ''}}}", "needs store.external.gcs.address"),
    (PRODUCTION, "store: {external: {gcs: {address: 'a:1,b:1'}}}", "names a cluster or several hosts"),
    (PRODUCTION, "store: {external: {gcs: {address: 'redis+cluster://a'}}}", "names a cluster"),
    (PRODUCTION, "store: {external: {gcs: {passwordSecret: {name: ''}}}}", "a store without a password"),
    (PRODUCTION, "models: {big: {checkpoint: {claim: ''}}}", "models.big.checkpoint.claim is empty"),
    (PRODUCTION, "models: {big: {checkpoint: {source: node, path: x}}}", "absolute path"),
    (PRODUCTION, "gateway: {autoscaling: {enabled: true, keda: {enabled: true}}}", "would fight"),
    (PRODUCTION, "gateway: {autoscaling: {enabled: true, minReplicas: 11}}", "raise maxReplicas"),
    (PRODUCTION, "gateway: {terminationGracePeriodSeconds: 144}", "the drain takes 145 s"),
    (
        PRODUCTION,
        "gateway: {settings: {link_token: x}}",
        "gateway.settings.link_token is set by the chart",
    ),
    (PRODUCTION, "gateway: {service: {type: LoadBalancer}}", "in the clear"),
    (PRODUCTION, "gateway: {service: {type: LoadBalancer}}", "loadBalancerSourceRanges is empty"),
    (PRODUCTION, "gateway: {service: {type: NodePort}}", "loadBalancerSourceRanges is empty"),
    (PRODUCTION, "gateway: {service: {type: NodePort}}", "type is NodePort, where nodes may put"),
    (
        PRODUCTION,
        "gateway: {service: {type: LoadBalancer, externalTrafficPolicy: Cluster}}",
        "set gateway.service.externalTrafficPolicy to Local",
    ),
    (PRODUCTION, "gateway: {tls: {enabled: true}}", "gateway.tls.enabled has no source"),
    (PRODUCTION, "gateway: {tls: {clientCa: {enabled: true}}}", "needs gateway.tls.enabled"),
    (
        PRODUCTION,
        "gateway: {tls: {enabled: true, existingSecret: x, certManager: {enabled: true, issuerRef: {name: ca}}}}",
        "gateway.tls has two sources",
    ),
    (
        PRODUCTION,
        "gateway: {tls: {enabled: true, certManager: {enabled: true}}}",
        "issuerRef.name is empty",
    ),
    (
        PRODUCTION,
        "gateway: {tls: {enabled: true, existingSecret: x, clientCa: {enabled: true}}}",
        "tests.clientCertificateSecret",
    ),
    (PRODUCTION, "routes: {grpc: {enabled: true}}", "routes.grpc.parentRefs is empty"),
    (
        PRODUCTION,
        "routes: {grpc: {enabled: true, parentRefs: [{name: g}]}, http: {enabled: true, parentRefs: [{name: g}]}}",
        "keep one of them",
    ),
    (
        PRODUCTION,
        "{gateway: {tls: {enabled: true, existingSecret: x}}, routes: {grpc: {enabled: true}}}",
        "gateway.tls.backend.caConfigMap is empty",
    ),
    (TRIAL, "models: {Ray_Autoscaler: {checkpoint: {source: made}}}", "give the model another"),
    (TRIAL, "models: {ray.autoscaler: {checkpoint: {source: made}}}", "give the model another"),
    (PRODUCTION, "models: {big: {checkpoint: {source: node, path: /}}}", "absolute path"),
    (PRODUCTION, "models: {big: {checkpoint: {source: node, path: /a/b/}}}", "without a slash at its end"),
    (PRODUCTION, "models: {big: {checkpoint: {source: node, path: /a, repository: a/b}}}", "node's root"),
    (
        PRODUCTION,
        "models: {big: {checkpoint: {source: node, path: /models/../etc}}}",
        'the parts "." and ".."',
    ),
    (PRODUCTION, "models: {big: {checkpoint: {path: ../other}}}", 'the parts "." and ".."'),
    (PRODUCTION, "commonLabels: {app.kubernetes.io/name: x}", "commonLabels has app.kubernetes.io/name"),
    (PRODUCTION, "gateway: {podLabels: {headrace.dev/model: x}}", "gateway.podLabels has headrace.dev/model"),
    (PRODUCTION, "monitoring: {labels: {helm.sh/chart: x}}", "monitoring.labels has helm.sh/chart"),
    (PRODUCTION, "store: {external: {kind: sentinel}}", "store.external.ports has one port"),
    (PRODUCTION, "store: {external: {gcs: {address: valkey-0}}}", "the port included and nothing behind it"),
    (PRODUCTION, "store: {external: {gcs: {address: 'valkey:6379/0'}}}", "the port included and nothing"),
    (PRODUCTION, "tracing: {endpoint: 'http://otel:4318/v1/traces'}", "OTLP over gRPC"),
    (PRODUCTION, "tracing: {endpoint: 'http://otel'}", "OTLP over gRPC"),
    (TRIAL, "store: {bundled: {maxmemory: 2gb}}", "not below the memory limit of 2Gi"),
    (TRIAL, "store: {bundled: {maxmemory: 2147483648}}", "not below the memory limit of 2Gi"),
    (
        PRODUCTION,
        "models: {big: {resources: {worker: {requests: {memory: 200Gi}, limits: {memory: 30Gi}}}}}",
        "models.big.worker asks for 200Gi of memory and has a limit of 30Gi",
    ),
    (
        PRODUCTION,
        "gateway: {resources: {requests: {cpu: 2}, limits: {cpu: 1500m}}}",
        "gateway asks for 2 of cpu and has a limit of 1500m",
    ),
    (TRIAL, f"nameOverride: {LONG}", "nameOverride has 41 characters"),
    (TRIAL, "secrets: {existingSecret: {keys: {rayToken: token}}}", "KubeRay reads the key auth_token only"),
]


@pytest.mark.parametrize(("base", "values", "sentence"), REFUSALS)
def test_values_that_cannot_be_meant_are_refused_with_a_sentence(
    base: str, values: str, sentence: str, tmp_path: Path
) -> None:
    done = rendered(tmp_path, base, values)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = rendered(tmp_path).stderr
    assert all(each in said for each in ("There are no secrets", "There are no models", "gcs.address"))


def test_the_seconds_of_an_end_add_up_below_the_sleep_action_too(tmp_path: Path) -> None:
    """Kubernetes has it since 1.30; below, the gateway's own delay is longer by as much."""
    (path := tmp_path / "values.yaml").write_text(PRODUCTION)
    for version, sleeps, delay in (("1.29.0", False, 10), ("1.30.0", True, 5)):
        argv = [str(HELM), "template", "x", str(CHART), "--values", str(path), "--kube-version", version]
        found = list(yaml.safe_load_all(subprocess.run(argv, capture_output=True, text=True).stdout))
        pod = next(each for each in found if each and each["kind"] == "Deployment")["spec"]["template"][
            "spec"
        ]
        assert pod["terminationGracePeriodSeconds"] == 145
        assert ("lifecycle" in pod["containers"][0]) is sleeps
        assert any(
            f"drain_delay = {delay}\n" in str(each.get("data", {}).get("gateway.toml")) for each in found
        )


def sentences() -> Iterator[str]:
    """Of each sentence that the templates can refuse with, the longest part that is the same whatever the values."""
    for path in sorted((CHART / "templates").rglob("*.tpl")):
        defined = re.findall(
            r'\{\{- define "headrace\.validate\.[^"]+" -\}\}(.*?)\n\{\{- end -\}\}', path.read_text(), re.S
        )
        for line in "\n".join(defined).splitlines():
            if line and not re.fullmatch(r"\s*(\{\{.*?\}\}\s*)+", line):
                yield max(re.split(r"\{\{.*?\}\}", line), key=len).strip()


def test_every_sentence_has_been_said(tmp_path: Path) -> None:
    said = [rendered(tmp_path, base, values).stderr for base, values, _ in REFUSALS]
    said += [rendered(tmp_path).stderr, *laid_out(tmp_path)]
    assert len(set(sentences())) > 40
    assert not [each for each in sentences() if not any(each in text for text in said)]


def laid_out(tmp_path: Path) -> list[str]:
    """What is said of layouts, whose cases are with the engines."""
    entries = [over(USUAL, entry) for entry, _ in LAYOUTS]
    texts = [yaml.safe_dump({"models": {MODEL: entry}}) for entry in entries]
    return [rendered(tmp_path, PRODUCTION, text).stderr for text in texts]
