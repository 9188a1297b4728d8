"""gpt-oss and gpt-oss-safeguard as a Family."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from services.core.request import Conversation, Sampling
from services.text.checkpoint import CheckpointError, context_length, read_config
from services.text.family import Abilities
from services.text.harmony import structure, vocabulary
from services.text.harmony.parse import HarmonyParser
from services.text.harmony.render import render
from services.text.structure import is_demanded, offered, whole

ABILITIES = Abilities(tools=True, reasoning=True, effort=True)
NEUTRAL = Sampling(temperature=1.0, top_p=1.0)  # as openai/gpt-oss recommends


@dataclass(frozen=True, slots=True)
class Harmony:
    """Needs no file of the checkpoint but config.json: the vocabulary comes with oss-harmony."""

    context_length: int
    stop_ids: tuple[int, ...] = vocabulary.STOP_IDS
    sampling: Sampling = NEUTRAL
    vocab_size: int = vocabulary.VOCAB_SIZE
    abilities: Abilities = ABILITIES

    @classmethod
    def load(cls, folder: Path) -> "Harmony":
        """Raises CheckpointError, also if the installed harmony library is another one."""
        try:
            vocabulary.check()
        except vocabulary.HarmonyAbsent as error:
            raise CheckpointError(str(error)) from error
        return cls(context_length(folder, read_config(folder)))

    @property
    def longest_token(self) -> int:
        return vocabulary.longest_token()

    def prompt(self, conversation: Conversation) -> list[int]:
        return render(conversation)

    def parser(self, conversation: Conversation, prompt: Sequence[int]) -> HarmonyParser:
        return HarmonyParser(frozenset(function.name for function in offered(conversation)))

    def structure(self, conversation: Conversation) -> str:
        return whole(structure.of(conversation)) if is_demanded(conversation) else ""

    def legal(self, conversation: Conversation) -> str:
        return whole(structure.of(conversation))

    def token(self, id: int) -> bytes:
        return vocabulary.token_table()[id] if id < vocabulary.FIRST_CONTROL else b""
