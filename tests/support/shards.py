"""Small checkpoints with real safetensors shards and their index."""

import json


def shard(*sizes: int) -> bytes:
    """A safetensors file with one tensor of bytes for each size."""
    header, offset = {}, 0
    for number, size in enumerate(sizes):
        header[f"t{number}"] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(i % 251 for i in range(offset))


def checkpoint(shards: int = 2) -> dict[str, bytes]:
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    files = {name: shard(3000, 200_000 + place) for place, name in enumerate(names)}
    return files | {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
