"""The micro checkpoint for engine tests, built once and kept in a cache folder."""

import os
from pathlib import Path
from typing import Any

from cluster.engine.launch import VllmSettings, environment
from cluster.models import micro, smollm2


def cache_folder() -> Path:
    """The one that `headrace up` uses."""
    base = os.environ.get("HEADRACE_CACHE") or Path.home() / ".cache" / "headrace"
    return Path(base) / "models"


def micro_checkpoint() -> Path:
    """About 25 s the first time, then nothing."""
    folder = cache_folder()
    return micro.build(folder / "micro", smollm2.prepare(folder / "smollm2-135m"))


def micro_settings(**shape: Any) -> VllmSettings:
    """Settings of the micro engine, with the environment that they imply in force."""
    checkpoint = str(micro_checkpoint())
    settings = VllmSettings(checkpoint=checkpoint, max_model_len=2048, max_num_seqs=64, **shape)
    os.environ.update(environment(settings))
    return settings
