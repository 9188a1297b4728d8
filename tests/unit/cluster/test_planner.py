"""The planner: the reference's table, and what holds for every question."""

import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.engine.launch import VllmSettings
from cluster.models.catalogue import CATALOGUE, find
from cluster.models.cpu import on_cpu
from cluster.models.gpus import BY_NAME, KINDS
from cluster.models.planner import ENOUGH, NoPlan, Plan, PlanError, Question, layouts, plan

K = 1024


def made(model: str, gpu: str, gpus: int, context: int | None = None, concurrency: int = 1) -> Plan:
    result = plan(Question(find(model), BY_NAME[gpu], gpus, context, concurrency))
    assert isinstance(result, Plan)
    return result


# The reference's recommendations: model, GPU, how many, context, and the plan as TP, PP, replicas.
TABLE = [
    ("gpt-oss-20b", "l4", 1, 32 * K, (1, 1, 1)),
    ("gpt-oss-20b", "l40s", 8, 32 * K, (1, 1, 8)),
    ("gpt-oss-20b", "a100-80", 8, None, (1, 1, 8)),
    ("gpt-oss-20b", "h100", 8, None, (1, 1, 8)),
    ("gpt-oss-safeguard-20b", "l4", 4, 32 * K, (1, 1, 4)),
    ("gpt-oss-120b", "h100", 16, 32 * K, (2, 1, 8)),
    ("gpt-oss-120b", "h100", 8, None, (2, 1, 4)),
    ("gpt-oss-120b", "h100", 1, 32 * K, (1, 1, 1)),
    ("gpt-oss-120b", "h200", 8, None, (1, 1, 8)),
    ("gpt-oss-120b", "b200", 8, None, (1, 1, 8)),
    ("gpt-oss-120b", "a100-80", 8, 32 * K, (1, 1, 8)),
    ("gpt-oss-120b", "a100-80", 8, 128 * K, (2, 1, 4)),
    ("gpt-oss-120b", "l40s", 8, 32 * K, (4, 1, 2)),
    ("gpt-oss-safeguard-120b", "h100", 2, None, (2, 1, 1)),
    ("deepseek-r1", "h200", 8, None, (8, 1, 1)),
    ("deepseek-r1", "h100", 16, None, (8, 2, 1)),
    ("deepseek-r1", "b200", 8, None, (8, 1, 1)),
    ("deepseek-r1-distill-qwen-32b", "h100", 8, 32 * K, (2, 1, 4)),
    ("deepseek-r1-distill-qwen-32b", "a100-80", 2, 32 * K, (2, 1, 1)),
    ("deepseek-r1-distill-llama-70b", "h100", 8, 32 * K, (4, 1, 2)),
    ("deepseek-r1-distill-llama-70b", "a100-80", 4, 32 * K, (4, 1, 1)),
    ("deepseek-r1-distill-llama-8b", "h100", 1, None, (1, 1, 1)),
    ("smollm2-135m", "l4", 2, None, (1, 1, 2)),
]


@pytest.mark.parametrize(
    ("model", "gpu", "gpus", "context", "expected"),
    TABLE,
    ids=[f"{m}-{n}x{g}-{c}" for m, g, n, c, _ in TABLE],
)
def test_the_plan_is_the_references(
    model: str, gpu: str, gpus: int, context: int | None, expected: tuple[int, int, int]
) -> None:
    layout = made(model, gpu, gpus, context).layout
    assert (
        layout.arguments.tensor_parallel_size,
        layout.arguments.pipeline_parallel_size,
        layout.replicas,
    ) == expected


@pytest.mark.parametrize(
    ("model", "gpu", "gpus", "why", "instead"),
    [
        (
            "deepseek-r1",
            "h100",
            8,
            r"weights of 78\.7 GiB per GPU, 71\.6 GiB usable",
            "16 x h100 hold it as TP8 x PP2",
        ),
        ("deepseek-r1", "b200", 4, "no room for one sequence", "8 x b200 hold it as TP8 x PP1"),
        ("deepseek-r1", "l4", 8, "weights of", "40 x l4 hold it as TP8 x PP5"),
        ("gpt-oss-120b", "l40s", 1, r"weights of 60\.8 GiB", "2 x l40s hold it as TP2 x PP1"),
        ("deepseek-r1-distill-llama-70b", "h100", 1, r"weights of 131\.4", "2 x h100 hold it"),
    ],
)
def test_what_does_not_fit_says_why_and_what_would(
    model: str, gpu: str, gpus: int, why: str, instead: str
) -> None:
    result = plan(Question(find(model), BY_NAME[gpu], gpus))
    assert isinstance(result, NoPlan)
    assert re.search(why, result.rejected[-1].why)
    assert instead in result.instead


def test_one_h100_takes_120b_only_with_the_recipes_limits() -> None:
    alone = made("gpt-oss-120b", "h100", 1, 32 * K).layout.arguments
    assert (alone.gpu_memory_utilization, alone.max_num_batched_tokens) == (0.95, 1024)
    pair = made("gpt-oss-120b", "h100", 2, 32 * K).layout.arguments
    assert (pair.gpu_memory_utilization, pair.max_num_batched_tokens) == (0.9, 8192)


def test_one_a100_takes_120b_with_a_context_of_32k() -> None:
    result = made("gpt-oss-120b", "a100-80", 1)
    assert result.layout.arguments.max_model_len == 32 * K
    assert any("context limited to 32,768 of 131,072" in note for note in result.notes)


def test_a_layout_that_advice_passes_over_says_so() -> None:
    result = made("gpt-oss-120b", "h100", 16, 32 * K, 200)
    assert [each.name for each in result.rejected] == ["TP1 x PP1"]
    assert "31.6 %" in result.rejected[0].why


def test_blackwell_keeps_the_cache_of_gpt_oss_in_fp8() -> None:
    assert made("gpt-oss-20b", "b200", 1).layout.arguments.kv_cache_dtype == "fp8"
    assert made("deepseek-r1", "b200", 8).layout.arguments.kv_cache_dtype == "auto"


def test_experts_are_spread_whole_only_where_a_recipe_says_so() -> None:
    assert made("deepseek-r1", "h200", 8).layout.arguments.enable_expert_parallel
    assert not made("gpt-oss-120b", "h100", 2).layout.arguments.enable_expert_parallel


def test_speed_is_a_published_figure_or_none() -> None:
    figures = made("gpt-oss-120b", "h100", 16, 32 * K, 8 * 4).anchors
    assert [(figure.tokens_per_second, figure.source) for figure in figures] == [
        (646, "gpustack performance lab")
    ]
    assert made("deepseek-r1", "h100", 16).anchors == []


def test_sequences_that_must_wait_are_told_with_what_would_hold_them() -> None:
    result = made("gpt-oss-120b", "a100-80", 8, 32 * K, 200)
    assert result.sequences == 56
    assert "56 of 200 sequences of full length run at once, the others wait: 29 GPUs hold all" in result.notes


def test_gpus_left_over_are_told() -> None:
    assert "1 of 3 GPUs are left over" in made("gpt-oss-120b", "h100", 3, 32 * K).notes


def test_a_group_stays_within_one_machine() -> None:
    model, gpu = find("gpt-oss-120b"), BY_NAME["l40s"]
    result = plan(Question(model, gpu, 12, 32 * K, gpus_per_node=6))
    assert isinstance(result, Plan)
    assert (result.layout.arguments.tensor_parallel_size, result.layout.replicas, result.idle) == (4, 2, 4)


def test_a_replica_over_several_machines_fills_each_of_them() -> None:
    assert made("deepseek-r1", "h100", 16).layout.arguments.nodes == 2
    assert made("gpt-oss-120b", "h100", 16).layout.arguments.nodes == 1
    smaller = plan(Question(find("deepseek-r1"), BY_NAME["h200"], 8, gpus_per_node=4))
    assert isinstance(smaller, Plan)
    assert (smaller.layout.name, smaller.layout.arguments.nodes) == ("TP4 x PP2", 2)


def test_a_tight_layout_is_taken_when_there_is_no_other_and_marked() -> None:
    result = made("gpt-oss-120b", "a100-80", 1, 128 * K)
    assert result.layout.sequences < ENOUGH
    assert any(note.startswith("tight: ") for note in result.notes)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("gpus", 0, "gpus must be"),
        ("concurrency", 0, "concurrency must"),
        ("context", 200_000, "131,072 tokens"),
    ],
)
def test_a_wrong_question_names_its_field_and_limit(field: str, value: int, words: str) -> None:
    asked = {"gpus": 8, "concurrency": 1, "context": None} | {field: value}
    with pytest.raises(PlanError, match=words):
        Question(find("gpt-oss-120b"), BY_NAME["h100"], **asked)


def test_the_engine_knows_every_argument_that_a_plan_sets() -> None:
    for model in CATALOGUE:
        for gpu in KINDS:
            result = plan(Question(model, gpu, 16))
            if isinstance(result, Plan):
                VllmSettings(checkpoint="x", **asdict(result.layout.arguments))


@pytest.mark.parametrize(
    ("model", "free", "words"),
    [
        ("smollm2-135m", 8, ""),
        ("smollm2-1.7b", 8, r"needs 10\.4 GiB in float32, 8\.0 GiB are free"),
        ("gpt-oss-20b", 500, "mxfp4"),
        ("deepseek-r1", 5000, "fp8"),
    ],
)
def test_a_machine_without_a_gpu_says_what_it_can_run(model: str, free: float, words: str) -> None:
    assert re.search(words, on_cpu(find(model), free).why_not)
    assert bool(words) == bool(on_cpu(find(model), free).why_not)


questions = st.builds(
    lambda model, gpu, gpus, part, concurrency, node: Question(
        model, gpu, gpus, max(1, int(model.context * part)), concurrency, node
    ),
    st.sampled_from(CATALOGUE),
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.floats(0.001, 1),
    st.integers(1, 5000),
    st.sampled_from([1, 2, 4, 8]),
)


@given(questions)
def test_a_plan_never_exceeds_memory_or_gpus(question: Question) -> None:
    result = plan(question)
    if isinstance(result, NoPlan):
        return
    layout, arguments = result.layout, result.layout.arguments
    part = -(-question.model.shape.layers // arguments.pipeline_parallel_size) / question.model.shape.layers
    one = question.model.shape.sequence_bytes(
        arguments.max_model_len, arguments.tensor_parallel_size, arguments.element
    )
    held = layout.memory.weights + layout.memory.reserve + layout.sequences * one * part / 2**30
    assert held <= layout.memory.usable < question.gpu.memory_gib
    assert layout.replicas * arguments.gpus + result.idle == question.gpus and result.idle >= 0
    assert 1 <= layout.sequences <= arguments.max_num_seqs
    assert (
        arguments.gpus % arguments.nodes == 0 and arguments.gpus // arguments.nodes <= question.gpus_per_node
    )


@given(questions)
def test_shards_are_a_power_of_two_that_divides_the_heads_within_a_machine(question: Question) -> None:
    for layout in layouts(question, question.context or 1):
        tensor = layout.arguments.tensor_parallel_size
        assert tensor.bit_count() == 1 and question.model.shape.heads % tensor == 0
        assert tensor <= question.gpus_per_node


@given(questions)
def test_one_more_gpu_never_holds_fewer_of_the_sequences_asked_for(question: Question) -> None:
    more = Question(
        question.model,
        question.gpu,
        question.gpus + 1,
        question.context,
        question.concurrency,
        question.gpus_per_node,
    )
    assert held(more) >= held(question)


def held(question: Question) -> int:
    result = plan(question)
    return min(result.sequences, question.concurrency) if isinstance(result, Plan) else 0


@given(questions)
def test_everything_that_does_not_fit_has_its_reason(question: Question) -> None:
    result = plan(question)
    assert all(each.why for each in result.rejected)
    if isinstance(result, NoPlan):
        assert result.rejected and result.instead
