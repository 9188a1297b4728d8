"""The text side of a checkpoint folder: tokenizer, chat template, stop ids, recommended sampling."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from services.core.request import RANGES, Range, Sampling
from services.text.bytelevel import byte_table

Json = Mapping[str, Any]


class CheckpointError(ValueError):
    """A file of the checkpoint is missing or broken; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    tokenizer: Tokenizer  # control tokens recognised
    plain: Tokenizer  # the same without control tokens: their text is ordinary text
    control: frozenset[int]  # ids that only a template may write into a prompt
    token_bytes: Mapping[int, bytes] | None  # None: a token's text depends on its neighbours
    chat_template: str
    special_text: Mapping[str, str]  # bos_token, eos_token, ... as templates name them
    vocab_size: int
    context_length: int
    stop_ids: tuple[int, ...]
    sampling: Sampling  # recommended values; None where the checkpoint has no opinion

    @property
    def longest_token(self) -> int | None:
        """Bytes of text that a token can stand for at most; None where a normalizer or the vocabulary hides it."""
        if self.token_bytes is None or self.tokenizer.normalizer is not None:
            return None
        return max(map(len, self.token_bytes.values()))

    @classmethod
    def load(cls, path: Path | str) -> "Checkpoint":
        folder = Path(path)
        source = _json(folder / "tokenizer.json")
        tokenizer = _tokenizer(folder, source)
        names = _json(folder / "tokenizer_config.json")
        config = read_config(folder)
        generation = _json(folder / "generation_config.json", optional=True)
        special_text = _special_text(names)
        return cls(
            tokenizer=tokenizer,
            plain=_tokenizer(folder, {**source, "added_tokens": [t for t in _added(source) if _inert(t)]}),
            control=frozenset(t["id"] for t in _added(source) if not _inert(t)),
            token_bytes=byte_table(tokenizer) if _byte_level(source) else None,
            chat_template=_chat_template(folder, names),
            special_text=special_text,
            vocab_size=int(config.get("vocab_size") or tokenizer.get_vocab_size()),
            context_length=context_length(folder, config),
            stop_ids=_stop_ids(generation, config, tokenizer, special_text),
            sampling=_sampling(folder, generation),
        )


def _json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or 'cannot be read'}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: is not a JSON object")
    return value


def _tokenizer(folder: Path, source: Json) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_buffer(json.dumps(source).encode())
    except ValueError as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{folder / 'tokenizer.json'}: {reason}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _added(source: Json) -> list[dict[str, Any]]:
    return source.get("added_tokens") or []


def _byte_level(source: Json) -> bool:
    decoder: Json = source.get("decoder") or {}
    return decoder.get("type") == "ByteLevel"


def _inert(token: Json) -> bool:
    """Runs of white space, which some vocabularies add for density. All else may steer the model,
    also where the checkpoint does not call it special: DeepSeek's role markers are such."""
    return not token["content"].strip()


def read_config(folder: Path) -> Json:
    config = _json(folder / "config.json")
    nested: Json = config.get("text_config") or {}
    return {**config, **nested}  # multi-modal checkpoints nest the language model


def context_length(folder: Path, config: Json) -> int:
    length = config.get("max_position_embeddings")
    if not isinstance(length, int):
        raise CheckpointError(f"{folder / 'config.json'}: max_position_embeddings is missing")
    return length


def _chat_template(folder: Path, names: Json) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = names.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t["name"]: t["template"] for t in template}.get("default")
    if not isinstance(template, str):
        raise CheckpointError(f"{path}: is missing, and tokenizer_config.json has no chat_template")
    return template


def _special_text(names: Json) -> dict[str, str]:
    values = {n: names.get(n) for n in ("bos_token", "eos_token", "unk_token", "pad_token")}
    texts = {n: v["content"] if isinstance(v, dict) else v for n, v in values.items()}
    return {n: text for n, text in texts.items() if isinstance(text, str)}


def _stop_ids(
    generation: Json, config: Json, tokenizer: Tokenizer, special_text: Mapping[str, str]
) -> tuple[int, ...]:
    """Of the first file that names any. A list holds several ends, such as end of turn and end of text."""
    for source in (generation, config):
        ids = source.get("eos_token_id")
        if ids is not None:
            return tuple(ids) if isinstance(ids, list) else (int(ids),)
    id = tokenizer.token_to_id(special_text.get("eos_token", ""))
    return () if id is None else (id,)


def _sampling(folder: Path, generation: Json) -> Sampling:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    values = {name: generation.get(name) for name in names}
    if values["top_k"] == -1:  # as some checkpoints say "all"
        values["top_k"] = None
    allowed = RANGES | {"top_k": Range(0, 2**31 - 1)}
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and value in allowed[name]):
            raise CheckpointError(
                f"{folder / 'generation_config.json'}: {name} is no number in {allowed[name]}"
            )
    return Sampling(**values)
