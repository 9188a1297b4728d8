"""Which checkpoint a local stack serves, and how it is prepared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.models.catalogue import BY_NAME, Model, UnknownModel, find
from deploy.local.home import Home

PREPARED = {
    "smollm2-135m": "cluster.models.smollm2",
    "micro": "cluster.models.micro",
    "gpt-oss-tiny": "cluster.models.tiny_gptoss",
}


class NoSuchModel(Exception):
    """The message says what was asked for and what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`maker` is the module that prepares the checkpoint; None: it is there. `why` completes "on ..."; `row` is
    the catalogue's."""

    name: str
    checkpoint: Path
    why: str
    maker: str | None = None
    options: tuple[str, ...] = ()
    gpu: bool = False
    row: Model | None = None


def choose(asked: str | None, env: Mapping[str, str], home: Home, *, gpu: bool) -> Choice:
    """What was asked for, or gpt-oss-20b where a GPU is and SmolLM2 elsewhere."""
    name = asked or ("gpt-oss-20b" if gpu else "smollm2-135m")
    where = "the GPU" if gpu else "the CPU"
    why = where if asked else f"{where} (the default there; MODEL=... chooses another)"
    row, cache = _row(name), home.cache / "models"
    folder = Path(name).expanduser().absolute()
    # A path may read like a repository's name.
    if (row is None or "/" in name) and (folder / "config.json").is_file():
        return Choice(folder.name.lower(), folder, why, gpu=gpu)
    known = row.name if row else name
    if known in PREPARED:
        return replace(_prepared(known, cache, why), gpu=gpu, row=row)
    if row is None:
        raise NoSuchModel(_unknown(name))
    return Choice(row.name, _published(row, env, cache), why, gpu=gpu, row=row)


def _row(name: str) -> Model | None:
    try:
        return find(name)
    except UnknownModel:
        return None


def _prepared(name: str, cache: Path, why: str) -> Choice:
    options = ("--smollm2", str(cache / "smollm2-135m")) if name == "micro" else ()
    return Choice(name, cache / name, why, PREPARED[name], options)


def _published(row: Model, env: Mapping[str, str], cache: Path) -> Path:
    """MODEL_PATH, what `headrace fetch` staged, or a download of the hub's own command."""
    if path := env.get("MODEL_PATH"):
        if not (Path(path) / "config.json").is_file():
            raise NoSuchModel(
                f"MODEL_PATH={path} holds no config.json: point it at the checkpoint of {row.name}"
            )
        return Path(path).absolute()
    if (cache / row.name / "config.json").is_file():
        return cache / row.name
    snapshots = _hub(env) / f"models--{row.repository.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"), key=lambda file: file.stat().st_mtime)
    if found:
        return found[-1].parent
    raise NoSuchModel(
        f"the checkpoint of {row.name} is not on this machine: `headrace fetch {row.name}` gets it; or point "
        f"MODEL_PATH at its folder, or choose another: `MODEL=smollm2-135m make up`"
    )


def _unknown(name: str) -> str:
    known = ", ".join([*PREPARED, *(each for each in BY_NAME if each not in PREPARED)])
    return f"no model {name!r}: neither a checkpoint folder (with config.json) nor one of {known}"


def _hub(env: Mapping[str, str]) -> Path:
    if cache := env.get("HF_HUB_CACHE"):
        return Path(cache)
    user = Path(env.get("HOME") or Path.home())
    return Path(env.get("HF_HOME") or user / ".cache/huggingface") / "hub"
