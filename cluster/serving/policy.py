"""Ray Serve's autoscaling policy of a model: a class, of which Serve's controller makes one object and calls it ten
times a second. Serve pickles this module by value, so it holds no more than the way to `Scaler`."""

import logging
import os
import weakref
from collections.abc import Mapping
from typing import Any

from cluster.scaling.settings import ScalingSettings
from cluster.serving.ledger import Ledger
from cluster.serving.scaler import Scaler, Situation
from cluster.serving.settings import SECRETS

FIRST_WORD_S = 1.0  # that the first decision waits for Redis, for what the last controller remembered


class LoadPolicy:
    """`model` and `settings`, those of the law but for LIVE, are its policy_kwargs. The address of Redis is a secret
    and comes from the environment of the controller; without it, held turns are unknown: nothing wakes and nothing is
    removed."""

    def __init__(self, model: str, settings: Mapping[str, Any]) -> None:
        url = os.environ.get(SECRETS["redis_url"], "")
        if not url:
            log = logging.getLogger("ray.serve")
            log.warning(
                "%s: %s is not set on Ray's head, so no replica is removed", model, SECRETS["redis_url"]
            )
        ledger = Ledger(model, url or "redis://127.0.0.1:1")
        ledger.start()
        weakref.finalize(self, ledger.close)
        ledger.opened.wait(FIRST_WORD_S)
        self._scaler = Scaler(model, ScalingSettings.model_validate({"max_replicas": 1, **settings}), ledger)

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        situation = Situation(
            now=ctx.current_time,
            replicas=list(ctx.running_replicas),
            samples=ctx.raw_metrics or {},
            target=ctx.target_num_replicas,
            least=ctx.capacity_adjusted_min_replicas,
            most=ctx.capacity_adjusted_max_replicas,
            target_turns=ctx.config.target_ongoing_requests,
        )
        return self._scaler.desired(situation), {"memory": self._scaler.document()}
