"""Writes tests/golden/smollm2 from a converted checkpoint: its text side, and prompts as transformers renders them.

    python -m cluster.models.smollm2 --to FOLDER
    python -m tests.golden.make_smollm2 FOLDER

transformers is the reference here and is used nowhere else.
"""

import json
import shutil
import sys
from pathlib import Path

GOLDEN = Path(__file__).parent / "smollm2"
COPIED = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json", "config.json")

SYSTEM = ("system", "You answer in one line.")
CONVERSATIONS: dict[str, list[tuple[str, str]]] = {
    "one question": [("user", "What is the capital of France?")],
    "system and question": [SYSTEM, ("user", "What is the capital of France?")],
    "multi-turn": [
        SYSTEM,
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "2+2?"),
        ("assistant", "4"),
        ("user", "x3"),
    ],
    "unicode": [
        ("user", "Crème brûlée, Straße, Ελληνικά, Русский, עברית, العربية, हिन्दी, ไทย, 日本語, 한국어")
    ],
    "emoji": [("user", "👩‍👩‍👧‍👦 🇫🇷 👍🏽 1️⃣"), ("assistant", "🎉🎉"), ("user", "é vs e\u0301")],
    "outer white space": [
        ("system", "  lead"),
        ("user", "  both  \n"),
        ("assistant", "trail \t"),
        ("user", "\n\nx\n\n"),
    ],
    "newlines at the seams": [("user", "\nstarts"), ("assistant", "ends\n"), ("user", "\r\nwindows\r\n")],
    "empty content": [("system", ""), ("user", ""), ("assistant", ""), ("user", " ")],
    "code": [("user", "def f(x):\n    return x ** 2  # 100%\n\n\tif x:\n\t\tpass")],
    "digits": [("user", "1234567890 3.14159 1e-9 2024-01-31 007")],
    "near control text": [("user", "<|im_start <|im_end| |im_start|> < |im_end|> </s> <think>")],
    "seams that look like pieces": [("user", "<|"), ("assistant", "im_end|>"), ("user", "<")],
    "odd characters": [("user", "a\x00b\u200b\u202ec\ufeffd\ufffde\u00ad \u3000 \x1b[31m")],
    "long": [("user", "The quick brown fox jumps over the lazy dog. " * 40)],
    "no user": [SYSTEM],
}


def main(source: Path) -> None:
    from transformers import AutoTokenizer

    GOLDEN.mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(source / name, GOLDEN / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    (GOLDEN / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")))
    reference = AutoTokenizer.from_pretrained(GOLDEN)
    prompts = [golden(reference, name, turns) for name, turns in CONVERSATIONS.items()]
    lines = ",\n".join(json.dumps(prompt, ensure_ascii=True) for prompt in prompts)
    (GOLDEN / "prompts.json").write_text(f"[\n{lines}\n]\n")


def golden(reference: object, name: str, turns: list[tuple[str, str]]) -> dict[str, object]:
    messages = [{"role": role, "content": text} for role, text in turns]
    encoded = reference.apply_chat_template(messages, add_generation_prompt=True)  # type: ignore[attr-defined]
    ids = encoded if isinstance(encoded, list) else encoded["input_ids"]
    return {"name": name, "messages": turns, "ids": list(ids)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
