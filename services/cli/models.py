"""`headrace models`."""

from dataclasses import asdict
from pathlib import Path

from services.cli import calls, output, where


def show(endpoint: str | None, key_file: Path | None, *, as_json: bool) -> None:
    models = calls.call(where.find(endpoint, key_file), lambda client: client.models())
    if as_json:
        output.as_json([asdict(model) for model in models])
        return
    rows = (
        (
            model.name,
            model.context_length,
            sum(r.connected for r in model.replicas),
            " ".join(word for word in ("tools", "reasoning", "effort") if getattr(model, word)) or "-",
            model.revision[:12],
        )
        for model in models
    )
    output.table(("MODEL", "CONTEXT", "REPLICAS", "CAN", "REVISION"), rows)
