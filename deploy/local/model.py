"""Which checkpoint a local stack serves, and how it is prepared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.local.home import Home

PREPARED = {"smollm2-135m": "cluster.models.smollm2", "micro": "cluster.models.micro"}
PUBLISHED = {
    "gpt-oss-20b": "openai/gpt-oss-20b",
    "gpt-oss-120b": "openai/gpt-oss-120b",
    "gpt-oss-safeguard-20b": "openai/gpt-oss-safeguard-20b",
}


class NoSuchModel(Exception):
    """The message says what was asked for and what to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`maker` is the module that prepares the checkpoint; None: it is there. `why` completes "on ..."."""

    name: str
    checkpoint: Path
    why: str
    maker: str | None = None
    options: tuple[str, ...] = ()
    gpu: bool = False


def choose(asked: str | None, env: Mapping[str, str], home: Home, *, gpu: bool) -> Choice:
    """What was asked for, or gpt-oss-20b where a GPU is and SmolLM2 elsewhere."""
    name = asked or ("gpt-oss-20b" if gpu else "smollm2-135m")
    where = "the GPU" if gpu else "the CPU"
    why = where if asked else f"{where} (the default there; MODEL=... chooses another)"
    if name in PREPARED:
        return replace(_prepared(name, home.cache / "models", why), gpu=gpu)
    if name in PUBLISHED:
        return Choice(name, _published(name, env), why, gpu=gpu)
    folder = Path(name).expanduser().absolute()
    if (folder / "config.json").is_file():
        return Choice(folder.name.lower(), folder, why, gpu=gpu)
    known = ", ".join([*PREPARED, *PUBLISHED])
    raise NoSuchModel(f"no model {name!r}: neither a checkpoint folder (with config.json) nor one of {known}")


def _prepared(name: str, cache: Path, why: str) -> Choice:
    options = ("--smollm2", str(cache / "smollm2-135m")) if name == "micro" else ()
    return Choice(name, cache / name, why, PREPARED[name], options)


def _published(name: str, env: Mapping[str, str]) -> Path:
    if path := env.get("MODEL_PATH"):
        if not (Path(path) / "config.json").is_file():
            raise NoSuchModel(f"MODEL_PATH={path} holds no config.json: point it at the checkpoint of {name}")
        return Path(path).absolute()
    repository = PUBLISHED[name]
    snapshots = _hub(env) / f"models--{repository.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"), key=lambda file: file.stat().st_mtime)
    if found:
        return found[-1].parent
    raise NoSuchModel(
        f"the checkpoint of {name} is not on this machine: download it (`hf download {repository}`), "
        f"point MODEL_PATH at its folder, or choose another: `MODEL=smollm2-135m make up`"
    )


def _hub(env: Mapping[str, str]) -> Path:
    if cache := env.get("HF_HUB_CACHE"):
        return Path(cache)
    user = Path(env.get("HOME") or Path.home())
    return Path(env.get("HF_HOME") or user / ".cache/huggingface") / "hub"
