"""Checkpoint folders of families in miniature: their marks as added tokens, a template in their style, no weights.

The vocabulary is the bytes, so every text has its ids and one id is one byte.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

QWEN_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
DEEPSEEK_MARKS = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
)

# Takes an object as arguments; writes the thoughts that it is given.
QWEN = """\
{%- if tools %}{{ '<|im_start|>system\\nFunctions:' }}{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
{{ '\\nAnswer {"name": ..., "arguments": ...} in <tool_call></tool_call>.<|im_end|>\\n' }}{% endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}
{{ '<|im_start|>user\\n<tool_response>' + m.name + ': ' + m.content + '</tool_response><|im_end|>\\n' }}
{%- else %}
{{ '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content }}
{%- for call in m.tool_calls %}{% set f = call.function %}
{{ '<tool_call>{"name": "' + f.name + '", "arguments": ' }}{{ f.arguments | tojson }}{{ '}</tool_call>' }}
{%- endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}{{ '<|im_start|>assistant\\n' }}"""

# Takes arguments as text, which it joins to its own; drops the thoughts of the history.
DEEPSEEK = """\
{{ bos_token }}{% for tool in tools or [] %}{% set f = tool.function %}
{{ f.name + ': ' + f.description }}{{ f.parameters | tojson }}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' %}<｜User｜>{{ m.content }}
{%- elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>
{%- elif m.role == 'assistant' %}<｜Assistant｜>%CLOSED%{{ m.content.split('</think>')[-1] }}
{%- if m.tool_calls %}<｜tool▁calls▁begin｜>
{%- for call in m.tool_calls %}<｜tool▁call▁begin｜>%CALL%<｜tool▁call▁end｜>{% endfor %}
<｜tool▁calls▁end｜>{% endif %}<｜end▁of▁sentence｜>
{%- else %}{{ m.content }}
{%- endif %}
{%- endfor %}
{%- if messages[-1].role != 'tool' %}<｜Assistant｜>%OPENING%{% endif %}"""
FENCED = (
    "function<｜tool▁sep｜>{{ call.function.name + '\\n```json\\n' + call.function.arguments + '\\n```' }}"
)
BARE = "{{ call.function.name + '<｜tool▁sep｜>' + call.function.arguments }}"


def deepseek(call: str = FENCED, *, closed: str = "", opening: str = "<think>\n") -> str:
    return DEEPSEEK.replace("%CALL%", call).replace("%CLOSED%", closed).replace("%OPENING%", opening)


def write(folder: Path, marks: tuple[str, ...], template: str, **generation: object) -> Path:
    """The folder, with what Checkpoint reads. The last of two special tokens ends an answer."""
    folder.mkdir(exist_ok=True)
    tokenizer = tokenizer_of(marks)
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": {"max_position_embeddings": 4096, "vocab_size": tokenizer.get_vocab_size()},
        "tokenizer_config.json": {"bos_token": marks[0], "eos_token": marks[1]},
        "generation_config.json": {"eos_token_id": tokenizer.token_to_id(marks[1]), **generation},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def tokenizer_of(marks: tuple[str, ...]) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={c: id for id, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks[:2]])
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in marks[2:]])
    return tokenizer
