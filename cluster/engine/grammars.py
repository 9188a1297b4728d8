"""Grammars in the engine core's process, which imports this by the path that vllm.py names.

xgrammar 0.2.8 takes two compiled rules for the same whatever token ids they are about, between grammars and
within one, and then refuses a marker where another one's mask stands. Its cache is the cause, so this
compiles without; vLLM has no switch for it. The compiler is ready before the first turn that needs it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xgrammar
from vllm.config import VllmConfig
from vllm.v1.core.sched.interface import SchedulerInterface
from vllm.v1.structured_output import StructuredOutputManager
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend, XgrammarGrammar

from cluster.engine.structure import parted


def scheduler(
    *, vllm_config: VllmConfig, structured_output_manager: StructuredOutputManager, **arguments: Any
) -> SchedulerInterface:
    """The scheduler that vLLM takes by itself; it is the first to be handed the manager of grammars."""
    if not vllm_config.model_config.skip_tokenizer_init:
        vocab_size = vllm_config.model_config.get_vocab_size()
        manager = structured_output_manager
        manager.backend = Uncached(vllm_config, tokenizer=manager.tokenizer, vocab_size=vocab_size)
    vllm_config.scheduler_config.scheduler_cls = None
    kind = vllm_config.scheduler_config.get_scheduler_cls()
    return kind(vllm_config=vllm_config, structured_output_manager=structured_output_manager, **arguments)


@dataclass
class Uncached(XgrammarBackend):  # type: ignore[misc]  # vLLM has no types here
    def __post_init__(self) -> None:
        vocabulary = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=self.vocab_size)
        # Half of the cores: a large grammar takes seconds, and the streams go on meanwhile.
        threads = max(1, len(os.sched_getaffinity(0)) // 2)
        self.compiler = xgrammar.GrammarCompiler(vocabulary, max_threads=min(8, threads), cache_enabled=False)
        self.disable_any_whitespace = False
        self.num_speculative_tokens = self.vllm_config.num_speculative_tokens

    def compile_grammar(
        self,
        request_type: StructuredOutputOptions,
        grammar_spec: str,
        stop_token_ids: set[int] | None = None,
    ) -> XgrammarGrammar:
        """Raises ValueError, which ends the turn before its first token, if the tag refuses what it continues."""
        tag, continued = parted(grammar_spec)
        grammar = super().compile_grammar(request_type, tag, stop_token_ids)
        # A budget of tokens is kept, and relaxed, where masks are made.
        advance(grammar, continued, self.allocate_token_bitmask(1) if '"max_tokens"' in tag else None)
        return grammar


def advance(grammar: XgrammarGrammar, ids: Sequence[int], mask: Any = None) -> None:
    """Put the grammar where it was after these ids, with a mask made before each if there is room for one.

    Raises ValueError if it refuses one or ends with them.
    """
    for id in ids:
        if mask is not None:
            grammar.fill_bitmask(mask, 0)
        # Not its own accept_tokens: that writes the ids into the log.
        if not grammar.matcher.accept_token(id) or grammar.matcher.is_terminated():
            raise ValueError("the structural tag refuses the output that it continues")
    grammar.num_processed_tokens = len(ids)
