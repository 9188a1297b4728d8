"""What reading an answer costs the gateway: CPU per token of each family's parser, one token a step.

python -m tests.load.parsers      measures and writes the README's block
"""

import time
from collections.abc import Callable, Sequence

from openai_harmony import Role, StreamableParser

from services.text.chat import PlainParser
from services.text.checkpoint import Checkpoint
from services.text.harmony.parse import HarmonyParser
from services.text.harmony.vocabulary import encoding
from tests.load.readme import LOAD, machine, table, write_block
from tests.support.gateway import CHECKPOINT

REPEATS = 15
WORDS = "The quick brown fox jumps over the lazy dog. " * 400
ANSWER = (
    f"<|channel|>analysis<|message|>{WORDS}<|end|><|start|>assistant<|channel|>final<|message|>{WORDS}<|end|>"
)

Run = Callable[[Sequence[int]], None]


def plain(checkpoint: Checkpoint) -> Run:
    def run(ids: Sequence[int]) -> None:
        push = PlainParser(checkpoint).push
        for id in ids:
            push((id,))

    return run


def ours(ids: Sequence[int]) -> None:
    push = HarmonyParser().push
    for id in ids:
        push((id,))


def librarys(ids: Sequence[int]) -> None:
    """With what a reader has to ask after each token to know where its text belongs."""
    parser = StreamableParser(encoding(), Role.ASSISTANT)
    for id in ids:
        parser.process(id)
        _ = parser.last_content_delta, parser.current_channel, parser.current_recipient


def cost(run: Run, ids: Sequence[int]) -> float:
    """Microseconds of CPU per token, the least of the repeats."""
    times = []
    for _ in range(REPEATS):
        begun = time.process_time()
        run(ids)
        times.append(time.process_time() - begun)
    return min(times) / len(ids) * 1e6


def main() -> None:
    checkpoint = Checkpoint.load(CHECKPOINT)
    harmony = encoding().encode(ANSWER, allowed_special="all")
    text = checkpoint.tokenizer.encode(WORDS * 2, add_special_tokens=False).ids
    rows = [
        ["chat template without marks", f"{cost(plain(checkpoint), text):.1f}"],
        ["harmony", f"{cost(ours, harmony):.1f}"],
        ["harmony, by the library's StreamableParser", f"{cost(librarys, harmony):.1f}"],
    ]
    lines = [f"Measured by `make bench-parsers` on {machine()}; least of {REPEATS} runs.", ""]
    written = "\n".join(lines + table(("answers read as", "us/token"), rows))
    print(written)
    write_block("parsers", written, LOAD)


if __name__ == "__main__":
    main()
