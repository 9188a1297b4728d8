"""Writes harmony/ids.json: the ids of the prompts in harmony/*.txt, which were written by hand from the format's
description. Control tokens are recognised, so the ids do not depend on how Headrace renders.

python tests/golden/make_harmony.py
"""

import json
from pathlib import Path

from openai_harmony import load_harmony_encoding

FOLDER = Path(__file__).parent / "harmony"

if __name__ == "__main__":
    encoding = load_harmony_encoding("HarmonyGptOss")
    prompts = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.txt"))}
    ids = {name: encoding.encode(text, allowed_special="all") for name, text in prompts.items()}
    (FOLDER / "ids.json").write_text(json.dumps(ids) + "\n")
