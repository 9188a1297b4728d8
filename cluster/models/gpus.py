"""GPU kinds: how much they hold, how much work a step is given, and what nvidia-smi calls them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

GIB = 1 << 30
MIB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory_gib` is what nvidia-smi reports, below the number in the name; `batched_tokens` and `sequences`
    are the limits of a step that vLLM's server takes for this kind; `products` are the values of the label
    nvidia.com/gpu.product, which GPU feature discovery makes of nvidia-smi's names."""

    name: str
    memory_gib: float
    batched_tokens: int
    sequences: int
    link: str
    pattern: str
    products: tuple[str, ...] = ()


KINDS = (
    Gpu("b200", 179.1, 16384, 1024, "NVLink", r"\bB200\b", ("NVIDIA-B200",)),
    Gpu("h200", 140.4, 8192, 1024, "NVLink", r"\bH200\b", ("NVIDIA-H200",)),
    Gpu(
        "h100", 79.6, 8192, 1024, "NVLink", r"\bH100\b(?!.*(NVL|96GB))",
        ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"),
    ),
    Gpu(
        "a100-80", 80.0, 2048, 256, "NVLink", r"\bA100\b.*80GB",
        ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe"),
    ),
    Gpu("l40s", 45.0, 2048, 256, "PCIe", r"\bL40S\b", ("NVIDIA-L40S",)),
    Gpu("l4", 22.5, 2048, 256, "PCIe", r"\bL4\b", ("NVIDIA-L4",)),
)  # fmt: skip
BY_NAME = {kind.name: kind for kind in KINDS}


def kind_of(product: str, memory_mib: float) -> Gpu:
    """The kind of the GPU that nvidia-smi calls `product`; one without a row gets the most careful limits."""
    known = next((kind for kind in KINDS if re.search(kind.pattern, product)), None)
    if known is not None:
        return known
    name = product.removeprefix("NVIDIA ").strip().lower().replace(" ", "-")
    return Gpu(name, memory_mib / MIB_PER_GIB, 2048, 256, "unknown link", "")


def read_listing(text: str) -> Sequence[Gpu]:
    """The GPUs of `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`."""
    rows = (line.rpartition(",") for line in text.splitlines() if "," in line)
    return tuple(kind_of(name, float(mib)) for name, _, mib in rows if mib.strip().replace(".", "").isdigit())
