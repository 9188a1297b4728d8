"""What the autoscaling law is told. Unknown keys are refused; the figures behind the defaults are in README.md."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What Ray Serve tells the policy anew at each decision, so that another value replaces no replica.
LIVE = frozenset({"min_replicas", "max_replicas", "target_turns"})


class ScalingSettings(BaseModel):
    """Of one model's replicas. Times are seconds; shares are of one replica."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_replicas: int = Field(1, ge=0, le=10_000, description="replicas at least; 0 lets an idle model sleep")
    max_replicas: int = Field(ge=1, le=10_000, description="replicas at most")
    target_turns: float = Field(
        64.0, gt=0, le=100_000, description="turns that fill a replica, running and waiting"
    )
    ttft_budget_seconds: float = Field(
        2.0, gt=0, le=600, description="a prompt's backlog is to be computed within this time"
    )
    prefill_tokens_per_second: float = Field(
        15_000.0, gt=0, le=10_000_000, description="prompt tokens that one replica computes in a second"
    )
    kv_target: float = Field(0.8, gt=0, le=1, description="share of its KV blocks that fills a replica")
    upscale_delay_seconds: float = Field(
        30.0, ge=0, le=3600, description="more has to be wanted for so long before replicas are added"
    )
    downscale_delay_seconds: float = Field(
        600.0, ge=0, le=86_400, description="less has to be wanted for so long before one is removed"
    )
    downscale_step_seconds: float = Field(
        30.0, ge=0, le=86_400, description="time between two removals, once less is wanted for long enough"
    )
    downscale_to_zero_delay_seconds: float = Field(
        1800.0, ge=0, le=604_800, description="the last replica goes after so long without a turn"
    )
    up_at: float = Field(0.85, gt=0, le=1, description="above this share of what is asked for, more is")
    down_at: float = Field(
        0.7, gt=0, le=1, description="below this share of what one replica less would hold, one goes"
    )
    growth: float = Field(
        2.0, gt=1, le=100, description="replicas asked for, at most, as a multiple of those that run"
    )
    stale_after_seconds: float = Field(
        15.0, gt=0, le=3600, description="older statistics of a replica count as missing"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is below min_replicas, which is {self.min_replicas}")
        if self.down_at >= self.up_at:
            raise ValueError(
                f"down_at must be below up_at, which is {self.up_at}: replicas would come and go"
            )
        return self
