"""The tokenizer that an engine compiles grammars with, derived from the checkpoint's.

A grammar is matched against what each token spells. With the checkpoint's own tokenizer a special token
spells its name, so a JSON string may hold the end-of-message id as if it were text, and it has an end
token, which vLLM lets end any grammar whether the turn stops there or not. Here special tokens spell what no
text can, and there is no end token: they are reached by id alone, and turns end by their stop ids.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TOKENIZER = "tokenizer.json"

# In byte-level vocabularies this letter is the byte 0xFF, which is in no UTF-8 text. Others spell
# themselves; JSON strings hold no control characters.
UNSPEAKABLE_BYTE = "ÿ"
UNSPEAKABLE = "\x00"


@contextmanager
def grammar_tokenizer(checkpoint: Path) -> Iterator[Path | None]:
    """A folder with the derived tokenizer, for as long as the engine starts; None without a tokenizer.json."""
    source = checkpoint / TOKENIZER
    if not source.is_file():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="headrace-grammar-") as folder:
        derived = derive(json.loads(source.read_text()))
        (Path(folder) / TOKENIZER).write_text(json.dumps(derived))
        if (config := checkpoint / "config.json").is_file():
            # vLLM looks for the model's type beside a tokenizer, and tries again for seconds where there is none.
            shutil.copyfile(config, Path(folder) / "config.json")
        (Path(folder) / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        yield Path(folder)


def derive(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Nothing is encoded with it, so it has no merges: for gpt-oss they take most of the loading time."""
    prefix = UNSPEAKABLE_BYTE if is_byte_level(tokenizer) else UNSPEAKABLE
    specials = [
        token | {"content": prefix + token["content"]} if token["special"] else token
        for token in tokenizer["added_tokens"]
    ]
    model = tokenizer["model"]
    if "merges" in model:
        model = model | {"merges": []}
    hidden = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    if isinstance(model["vocab"], dict):
        model = model | {
            "vocab": {(prefix if token in hidden else "") + token: id for token, id in model["vocab"].items()}
        }
    return tokenizer | {"added_tokens": specials, "model": model, "post_processor": None}


def is_byte_level(tokenizer: dict[str, Any]) -> bool:
    decoder = tokenizer["decoder"] or {}
    return "ByteLevel" in [part["type"] for part in (decoder, *decoder.get("decoders", ()))]
