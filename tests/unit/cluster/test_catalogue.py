"""The catalogue against the figures of the reference: each row names its figure, its tolerance and where it stands."""

import re
from itertools import pairwise

import pytest

from cluster.models import anchors
from cluster.models.catalogue import ALIASES, BY_NAME, CATALOGUE, UnknownModel, find
from cluster.models.gpus import BY_NAME as GPUS
from cluster.models.gpus import kind_of, read_listing
from cluster.models.memory import Arguments, memory, sequences

TP2 = Arguments(2, 1, 131072, 256, 2048, 0.9)

# What the architecture gives exactly: model, KV bytes per token, bytes of its windows per sequence.
KV = [
    ("gpt-oss-20b", 24_576, 3_145_728),
    ("gpt-oss-120b", 36_864, 4_718_592),
    ("gpt-oss-safeguard-20b", 24_576, 3_145_728),
    ("gpt-oss-safeguard-120b", 36_864, 4_718_592),
    ("deepseek-r1", 70_272, 0),
    ("deepseek-r1-distill-qwen-1.5b", 28_672, 0),
    ("deepseek-r1-distill-qwen-7b", 57_344, 0),
    ("deepseek-r1-distill-qwen-14b", 196_608, 0),
    ("deepseek-r1-distill-qwen-32b", 262_144, 0),
    ("deepseek-r1-distill-llama-8b", 131_072, 0),
    ("deepseek-r1-distill-llama-70b", 327_680, 0),
    ("deepseek-r1-0528-qwen3-8b", 147_456, 0),
    ("smollm2-135m", 23_040, 0),
    ("smollm2-360m", 40_960, 0),
    ("smollm2-1.7b", 196_608, 0),
]

# What others report: model, GiB, relative tolerance, where.
WEIGHTS = [
    ("gpt-oss-20b", 12.88, 0.01, "log in vllm#22331"),
    ("gpt-oss-120b", 60.8, 0.01, "size of the checkpoint"),
    ("deepseek-r1", 690 / 1.0737, 0.03, "690 GB on disk, one layer of which is not loaded"),
]


def test_the_table_of_kv_bytes_covers_the_catalogue() -> None:
    assert {name for name, *_ in KV} == set(BY_NAME)


@pytest.mark.parametrize(("name", "per_token", "window"), KV, ids=[name for name, *_ in KV])
def test_kv_bytes_are_those_of_the_reference(name: str, per_token: int, window: int) -> None:
    shape = find(name).shape
    assert shape.token_bytes() == per_token
    assert shape.window_bytes() == window


@pytest.mark.parametrize(("name", "gib", "tolerance", "where"), WEIGHTS, ids=[name for name, *_ in WEIGHTS])
def test_weights_are_those_of_the_reference(name: str, gib: float, tolerance: float, where: str) -> None:
    assert find(name).weights_gib == pytest.approx(gib, rel=tolerance), where


@pytest.mark.parametrize(("name", "gb"), [("gpt-oss-20b", 3.2), ("gpt-oss-120b", 4.8)])
def test_a_sequence_of_full_length_costs_what_the_reference_says(name: str, gb: float) -> None:
    assert find(name).shape.sequence_bytes(131072) / 1e9 == pytest.approx(gb, rel=0.02)


def test_without_windows_counted_the_cost_would_be_double() -> None:
    """The reference's figure for an engine whose hybrid cache is off."""
    for name, doubled in (("gpt-oss-20b", 49_152), ("gpt-oss-120b", 73_728)):
        shape = find(name).shape
        assert shape.layers * shape.layer_bytes(1) == doubled


def test_a_short_sequence_does_not_pay_for_a_window_it_does_not_fill() -> None:
    shape = find("gpt-oss-120b").shape
    assert shape.sequence_bytes(1) == 36 * shape.layer_bytes(1)


def test_the_weights_of_120b_on_two_gpus_are_those_of_the_log() -> None:
    """34.38 GiB per GPU, blackfish#162: more than half, since shards pad their tiles."""
    room = memory(find("gpt-oss-120b"), GPUS["h100"], TP2)
    assert room.weights == pytest.approx(34.38, rel=0.01)


def test_the_room_for_kv_is_near_what_vllm_reported_and_not_above_it() -> None:
    """35.82 GiB per GPU at TP2 on H100; the estimate stays on the careful side, by at most a tenth."""
    room = memory(find("gpt-oss-120b"), GPUS["h100"], TP2)
    assert 0.9 * 35.82 < room.kv <= 35.82


def test_sequences_in_that_room_are_those_of_the_log() -> None:
    """15.66 x concurrency at 131,072 tokens in 35.82 GiB, vLLM's log at TP2 on H100."""
    assert sequences(find("gpt-oss-120b"), TP2, 35.82) == 15


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_key_and_value_heads_are_split_until_each_shard_has_one(tensor: int) -> None:
    oss, qwen = find("gpt-oss-120b").shape, find("r1-qwen-7b").shape
    assert oss.token_bytes(tensor) * tensor == oss.token_bytes()
    assert qwen.token_bytes(tensor) == max(qwen.token_bytes() // tensor, qwen.token_bytes() // 4)


def test_every_shard_keeps_the_whole_latent_of_r1() -> None:
    shape = find("deepseek-r1").shape
    assert {shape.token_bytes(tensor) for tensor in (1, 2, 4, 8)} == {70_272}


def test_an_fp8_cache_is_half_as_large() -> None:
    shape = find("gpt-oss-20b").shape
    assert shape.token_bytes(1, element=1) * 2 == shape.token_bytes()


@pytest.mark.parametrize("model", CATALOGUE, ids=lambda model: model.name)
def test_a_row_is_sound(model: object) -> None:
    row = find(model.name)  # type: ignore[attr-defined]
    assert row.revision is None or re.fullmatch(r"[0-9a-f]{40}", row.revision)
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", row.repository)
    assert row.shape.splits(1)
    assert all(advice.gpu in GPUS and row.shape.splits(advice.tensor_parallel) for advice in row.advice)


def test_names_aliases_and_repositories_find_one_row() -> None:
    assert find("120b") is find("openai/GPT-OSS-120b") is find("gpt-oss-120b")
    assert set(ALIASES.values()) <= set(BY_NAME)
    assert not set(ALIASES) & set(BY_NAME)
    with pytest.raises(UnknownModel, match="gpt-oss-20b"):
        find("gpt-5")


@pytest.mark.parametrize(
    ("product", "mib", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H100 PCIe", 81559, "h100"),
        ("NVIDIA H100 NVL", 95830, "h100-nvl"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA B200", 183359, "b200"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80"),
        ("NVIDIA A100 80GB PCIe", 81920, "a100-80"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-sxm4-40gb"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("NVIDIA L40", 46068, "l40"),
        ("NVIDIA L4", 23034, "l4"),
    ],
)
def test_a_gpu_is_known_by_the_name_it_prints(product: str, mib: int, kind: str) -> None:
    gpu = kind_of(product, mib)
    assert gpu.name == kind
    assert gpu.memory_gib == pytest.approx(mib / 1024, rel=0.01)


def test_the_listing_of_a_machine_is_read_and_noise_is_not() -> None:
    text = "NVIDIA L4, 23034\nNVIDIA L4, 23034\nNo devices were found\nX, [N/A]\n"
    assert [gpu.name for gpu in read_listing(text)] == ["l4", "l4"]


def test_figures_are_of_catalogued_shapes_and_rise_with_concurrency() -> None:
    shapes = {model.shape.name for model in CATALOGUE}
    places: dict[tuple[object, ...], list[anchors.Anchor]] = {}
    for anchor in anchors.ANCHORS:
        assert anchor.shape in shapes and anchor.gpu in GPUS and anchor.source
        place = (anchor.shape, anchor.gpu, anchor.tensor_parallel, anchor.pipeline_parallel)
        places.setdefault(place, []).append(anchor)
    for group in places.values():
        assert all(
            a.concurrency < b.concurrency and a.tokens_per_second < b.tokens_per_second
            for a, b in pairwise(group)
        )


@pytest.mark.parametrize(
    ("concurrency", "rates"), [(1, [215]), (0.5, [215]), (60, [2427, 3663]), (999, [5725])]
)
def test_the_figures_on_either_side_are_shown(concurrency: float, rates: list[int]) -> None:
    found = anchors.around("gpt-oss-120b", "b200", 1, 1, concurrency)
    assert [anchor.tokens_per_second for anchor in found] == rates
