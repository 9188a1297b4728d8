"""What a replica and its deployment are told. Unknown keys are refused; secrets do not print."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)

import cluster
from cluster.engine.health import HealthLimits
from cluster.engine.launch import VllmSettings
from cluster.engine.sim import SimSettings
from cluster.scaling.settings import ScalingSettings

NODE = "node"
# Secrets that a file may leave to the environment.
SECRETS = {"link_token": "HEADRACE_LINK_TOKEN", "redis_url": "HEADRACE_REDIS_URL"}


class ReplicaSettings(BaseModel):
    """One replica. Every replica of a deployment gets the same settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=128, description="name by which gateways ask for it")
    revision: str = ""
    engine: Literal["vllm", "sim"] = "vllm"
    vllm: VllmSettings | None = None
    sim: SimSettings = Field(default_factory=SimSettings)
    capacity: PositiveInt = Field(default=256, description="turns accepted at most, running and waiting")
    link_token: SecretStr = Field(min_length=1, description="shared secret of gateways and replicas")
    redis_url: SecretStr = Field(min_length=1)
    host: str = Field(default=NODE, description='address to listen on; "node" is the Ray node\'s')
    port: int = Field(default=0, ge=0, le=65535, description="0 takes a free one")
    otlp_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^/\s]+)?$",
        description="collector of traces, OTLP over gRPC, as http://host:4317; traced is what gateways trace",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    lease_ttl_ms: PositiveInt = 3000
    lease_renew_ms: PositiveInt = 1000
    drain_grace_s: NonNegativeFloat = 30.0
    first_token_timeout_s: PositiveInt = Field(default=600, description="for the first canary, once loaded")
    health: HealthLimits = Field(default_factory=HealthLimits)
    num_cpus: NonNegativeFloat = Field(
        default=1.0, description="CPUs that Ray sets aside on each of its nodes"
    )
    num_gpus: NonNegativeFloat = Field(
        default=0.0, description="GPUs on each node; the shards there need one each"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "vllm" and self.vllm is None:
            raise ValueError("engine vllm needs the section vllm")
        if self.lease_renew_ms * 2 > self.lease_ttl_ms:
            raise ValueError("lease_ttl_ms is below two renewals: one lost renewal would end the lease")
        if self.vllm is not None and 0 < self.num_gpus < self.vllm.shards_per_node:
            raise ValueError(
                f"num_gpus is below the {self.vllm.shards_per_node} shards of the engine on a node"
            )
        if self.nodes > 1 and not self.num_cpus + self.num_gpus:
            raise ValueError("num_cpus and num_gpus are 0: Ray needs one of them to tell the nodes apart")
        return self

    @property
    def nodes(self) -> int:
        return self.vllm.nodes if self.engine == "vllm" and self.vllm else 1


class AppSettings(BaseModel):
    """One model: what `args` of its application in a serveConfigV2 holds. Secrets come from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: PositiveInt = Field(default=1, description="how many; with autoscaling, that decides")
    autoscaling: ScalingSettings | None = None
    settings: ReplicaSettings

    def version(self) -> str:
        """Changes with whatever a replica is told, and with the code of this package; not with their number."""
        told = self.settings.model_dump()
        told |= {name: getattr(self.settings, name).get_secret_value() for name in SECRETS}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
        for source in sorted(Path(cluster.__file__).parent.rglob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:16]


class DeploySettings(AppSettings):
    """The file that `python -m cluster.serving --config` reads."""

    ray_address: str = Field(min_length=1)


def with_secrets(document: Mapping[str, Any], env: Mapping[str, str]) -> dict[str, Any]:
    """The document with the secrets that it leaves to the environment."""
    settings = document.get("settings", {})
    if not isinstance(settings, Mapping):
        return dict(document)
    known = {key: env[variable] for key, variable in SECRETS.items() if variable in env}
    return {**document, "settings": {**known, **settings}}


def brief(error: Exception) -> str:
    """One line; of a validation error the fields, never their values."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return (str(error).splitlines() or [type(error).__name__])[0]
