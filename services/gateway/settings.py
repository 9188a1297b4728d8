"""Settings of a gateway: one frozen tree, read once. HEADRACE_* wins over the file that HEADRACE_CONFIG names."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from services.core.request import Effort
from services.store.address import parse
from services.store.cipher import master_key

PREFIX = "HEADRACE_"
# Of the command and the local stack, not settings of a gateway.
OTHER_VARIABLES = {
    "CONFIG", "HOME", "CACHE", "ENDPOINT", "API_KEY", "API_KEY_FILE", "CA", "CLIENT_CERTIFICATE", "CLIENT_KEY", "STACK",
}  # fmt: skip

MARGIN = 10.0  # seconds after a turn's deadline for its reader to take the end

Address = Annotated[str, Field(pattern=r"^.+:\d{1,5}$")]


class Tls(BaseModel):
    """PEM files. With `client_ca` the gateway demands a client certificate (mTLS)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate: Path
    key: Path
    client_ca: Path | None = None


class GatewaySettings(BaseSettings):
    """Addresses are host:port. Times are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    listen: Address = Field("127.0.0.1:50051", description="public gRPC API")
    health_listen: Address = Field("127.0.0.1:50052", description="grpc.health.v1, plaintext")
    metrics_listen: Address = Field("127.0.0.1:9464", description="Prometheus metrics, HTTP")
    processes: int = Field(1, ge=1, le=64, description="worker processes that share the port")
    reflection: bool = Field(False, description="server reflection, for grpcurl")
    tls: Tls | None = Field(None, description="certificate and key of the public API")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="sessions, keys and leases"
    )
    master_key: SecretStr | None = Field(
        None, description="32 bytes in base64: journals and sessions are encrypted with keys made from it"
    )
    redis_timeout: float = Field(
        0.25, ge=0.05, le=5, description="a call to Redis takes at most so long, then it is away"
    )
    key_pepper: SecretStr = Field(description="secret under the digests of API keys")
    link_token: SecretStr = Field(description="secret shared with the engine replicas")

    models: dict[str, Path] = Field(description="model name to checkpoint folder (tokenizer and template)")
    max_turns: int = Field(512, ge=1, description="turns in flight in one worker, then RESOURCE_EXHAUSTED")
    tenant_turns: int | None = Field(
        None, ge=1, description="of them, turns of one tenant at most; none: three quarters"
    )
    default_max_tokens: int = Field(4096, ge=1, description="cap of max_tokens where a request names none")
    max_turn_seconds: float = Field(
        600, gt=0, description="deadline of calls that set none, and cap of theirs"
    )
    recovery: float = Field(
        60, ge=0, description="an answer whose replica is lost waits so long for another to go on with it"
    )
    hold: float = Field(
        0,
        ge=0,
        le=3600,
        description="a turn waits so long for a replica with room, as while one wakes; 0: refused at once",
    )
    max_held: int = Field(
        256,
        ge=1,
        description="turns that wait so in one worker, then they are refused; of a tenant three quarters",
    )
    linger: float = Field(
        10, ge=0, le=3600, description="a stream nobody reads goes on so long, then it is cancelled"
    )
    retention: float = Field(
        600, gt=0, le=86400, description="a turn's journal is kept so long after its end"
    )
    retentions: dict[str, Annotated[float, Field(gt=0, le=86400)]] = Field(
        {}, description="the same for single tenants"
    )
    journal_bytes: int = Field(
        16 << 20, ge=1024, description="a turn whose journal grows beyond ends RESOURCE_EXHAUSTED"
    )
    gateway_lease: float = Field(3, ge=0.5, description="a gateway silent so long loses its turns to another")
    max_message_bytes: int = Field(
        4 << 20, ge=1024, description="larger requests are refused by the transport"
    )
    max_connection_age: float = Field(
        600, ge=1, le=86400, description="a connection so old takes no new calls: its client connects anew"
    )
    max_connection_grace: float | None = Field(
        None,
        gt=0,
        description="for calls of an old connection to end; none: max_turn_seconds, the least there is",
    )
    session_ttl_limit: int = Field(
        2_592_000, ge=60, description="a session may ask to be kept so long after its last turn"
    )
    efforts: dict[str, Effort] = Field(
        {}, description='reasoning effort where a request names none, by "model" or "tenant/model"'
    )
    conversation_date: str = Field(
        "",
        pattern=r"^(\d{4}-\d{2}-\d{2})?$",
        description="the date models are told; empty: the day a conversation begins, UTC",
    )
    otlp_endpoint: str = Field(
        "",
        pattern=r"^(https?://[^/\s]+)?$",
        description="collector of traces, OTLP over gRPC, as http://host:4317; empty: no traces",
    )
    trace_ratio: float = Field(
        0.01, ge=0, le=1, description="of the turns whose caller has not decided, so many are traced"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="of the logs on stderr"
    )
    screen: tuple[str, ...] = Field((), description="regular expressions that no message may match")
    drain_delay: float = Field(0.0, ge=0, description="between NOT_SERVING and refusing new turns")
    drain_grace: float = Field(30.0, ge=0, description="for running turns to end after SIGTERM")

    @property
    def connection_grace(self) -> float:
        return max(self.max_connection_grace or 0.0, self.max_turn_seconds + MARGIN)

    @field_validator("redis_url")
    @classmethod
    def _store_can_be_addressed(cls, url: SecretStr) -> SecretStr:
        parse(url.get_secret_value())
        return url

    @field_validator("master_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            master_key(key.get_secret_value())
        return key

    @field_validator("screen")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("HEADRACE_CONFIG")
        files = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *files)


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """HEADRACE_* variables that nothing reads: a mistyped name must not pass for a setting."""
    known = OTHER_VARIABLES | {name.upper() for name in GatewaySettings.model_fields}
    ours = (name for name in env if name.startswith(PREFIX))
    return sorted(name for name in ours if name.removeprefix(PREFIX).split("__")[0] not in known)
