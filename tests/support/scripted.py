"""A logits processor that makes a real engine say what a script says, token by token.

A prompt that holds the text `#script:NAME#` is answered with the script of that name; other prompts are not
touched. Scripts are lists of attempts, {name: [[ids...], [ids...]]}, in a JSON file that HEADRACE_SCRIPTS
names: the first prompt with a name takes the first attempt, a later one the next, the last one
stays. After its ids the stop id ends the turn, unless the last id is one.
"""

import json
import os
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

VARIABLE = "HEADRACE_SCRIPTS"
PATH = "tests.support.scripted:Scripted"  # for VllmSettings.logits_processors
STOP_IDS = (200_002, 199_999, 200_012)


@cache
def encoding():  # type: ignore[no-untyped-def]
    import openai_harmony

    return openai_harmony.load_harmony_encoding("HarmonyGptOss")


def marker(name: str) -> str:
    return f"#script:{name}#"


def load(path: Path) -> dict[str, list[list[int]]]:
    return json.loads(path.read_text()) if path.is_file() else {}


class Script:
    """Forces the next id of one turn, by what the turn has said so far."""

    def __init__(self, ids: list[int]) -> None:
        self._ids = ids if ids and ids[-1] in STOP_IDS else [*ids, STOP_IDS[0]]

    def __call__(self, said: list[int], logits: torch.Tensor) -> torch.Tensor:
        forced = self._ids[min(len(said), len(self._ids) - 1)]
        logits.fill_(float("-inf"))
        logits[forced] = 0.0
        return logits


class Scripted(AdapterLogitsProcessor):
    """Every shard has one, and each counts attempts by itself: they see the same prompts in the same order."""

    def __init__(self, vllm_config: object, device: torch.device, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._seen: Counter[str] = Counter()

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> None:
        """Scripts are found by the prompt, which `_new_state` has."""

    def _new_state(
        self, params: SamplingParams, prompt_ids: list[int] | None, output_ids: list[int]
    ) -> object:
        # Read anew for each prompt: tests write scripts while the engine runs.
        scripts = load(Path(os.environ[VARIABLE]))
        text = encoding().decode(prompt_ids or [])
        name = next((name for name in scripts if marker(name) in text), None)
        if name is None:
            return None
        attempts = scripts[name]
        attempt = attempts[min(self._seen[name], len(attempts) - 1)]
        if not output_ids:
            # A turn that was preempted comes again, with what it said.
            self._seen[name] += 1
        script = Script(attempt)
        return lambda logits: script(output_ids, logits)
