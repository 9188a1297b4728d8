"""Answers of a model with random weights, of which many begin to reason and then do not stop."""

from typing import Any

from services.client import Answer, Choice, Client, Sampling

N = 8
TRIES = 10


async def whole(client: Client, question: str, **wish: Any) -> Answer | Choice:
    """One that ends by itself. The temperature levels what the weights happen to prefer."""
    for seed in range(0, TRIES * N, N):
        drawn = Sampling(seed=seed, temperature=2.0)
        answer = await client.generate(question, max_tokens=60, n=N, sampling=drawn, **wish)
        for each in (answer, *answer.more):
            if each.reason != "length":
                return each
    raise AssertionError(f"none of {TRIES * N} answers was whole")
