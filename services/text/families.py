"""Which family a checkpoint belongs to: one row each, by what its config.json says of it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from services.core.clock import Clock
from services.text.chat import Chat
from services.text.checkpoint import read_config
from services.text.family import Family


def _harmony(folder: Path, clock: Clock) -> Family:
    from services.text.harmony.family import Harmony  # 55 MB that only gateways of gpt-oss need

    return Harmony.load(folder)


BY_MODEL_TYPE: Mapping[str, Callable[[Path, Clock], Family]] = {"gpt_oss": _harmony}


def load(folder: Path, clock: Clock) -> Family:
    """The family of the checkpoint in this folder. Raises CheckpointError, one line that names the file."""
    model_type = str(read_config(folder).get("model_type", ""))
    return BY_MODEL_TYPE.get(model_type, Chat.load)(folder, clock)
