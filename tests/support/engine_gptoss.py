"""The tiny gpt-oss for engine tests: checkpoint, settings and scripts, with everything that they need in force."""

import json
import os
from pathlib import Path
from typing import Any

from cluster.engine.launch import VllmSettings, environment
from cluster.models import tiny_gptoss
from tests.support.engine_micro import cache_folder

VARIABLE = "HEADRACE_SCRIPTS"
SCRIPTED = "tests.support.scripted:Scripted"


def tiny_gptoss_checkpoint() -> Path:
    """About 20 s the first time, then nothing."""
    return tiny_gptoss.build(cache_folder() / "gpt-oss-tiny")


def gptoss_settings(scripts: Path | None = None, **shape: Any) -> VllmSettings:
    """Settings of the tiny engine, with the environment that they imply in force.

    With `scripts`, prompts with a marker are answered from that file; see scripted.py.
    """
    if scripts is not None:
        os.environ[VARIABLE] = str(scripts)
        shape["logits_processors"] = (SCRIPTED,)
    checkpoint = str(tiny_gptoss_checkpoint())
    settings = VllmSettings(checkpoint=checkpoint, max_model_len=4096, max_num_seqs=32, **shape)
    os.environ.update(environment(settings))
    return settings


def write_scripts(path: Path, **scripts: list[list[int]]) -> None:
    """Add to what is there; each script is a list of attempts, each the ids that are said."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(known | scripts))
    # The engine reads while tests write.
    os.replace(staged, path)
