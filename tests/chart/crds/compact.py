"""Makes the compact CRD schemas of this folder: `python -m tests.chart.crds.compact FOLDER-WITH-CRD-YAML`."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
# The kinds that the chart can render, each in the version that it renders.
KEPT = {
    "RayService": "v1",
    "ServiceMonitor": "v1",
    "PodMonitor": "v1",
    "PrometheusRule": "v1",
    "ScaledObject": "v1alpha1",
    "TriggerAuthentication": "v1alpha1",
    "GRPCRoute": "v1",
    "HTTPRoute": "v1",
    "BackendTLSPolicy": "v1",
    "Certificate": "v1",
}
PROSE = {"description", "example", "externalDocs"}


def main() -> None:
    for path in sorted(Path(sys.argv[1]).glob("*.yaml")):
        for name, schema in compact(yaml.safe_load(path.read_text())):
            text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
            (HERE / f"{name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def compact(crd: Any) -> Iterator[tuple[str, Any]]:
    spec = crd["spec"]
    kind = spec["names"]["kind"]
    for version in spec["versions"]:
        if version["name"] == KEPT.get(kind):
            schema = without_prose(version["schema"]["openAPIV3Schema"])
            yield (
                f"{kind}_{version['name']}",
                {
                    "apiVersion": f"{spec['group']}/{version['name']}",
                    "kind": kind,
                    "plural": spec["names"]["plural"],
                    "scope": spec["scope"],
                    "subresources": sorted(version.get("subresources", {})),
                    "schema": schema,
                },
            )


def without_prose(node: Any, is_schema: bool = True) -> Any:
    """A schema without what only people read; keys of `properties` are names, not keywords."""
    if isinstance(node, list):
        return [without_prose(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_prose(value, is_schema=key != "properties" or not is_schema)
        for key, value in node.items()
        if not (is_schema and key in PROSE)
    }


if __name__ == "__main__":
    main()
