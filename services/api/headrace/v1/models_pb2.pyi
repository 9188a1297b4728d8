from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Model(_message.Message):
    __slots__ = ("name", "revision", "context_length", "replicas", "abilities", "scaling", "changes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    ABILITIES_FIELD_NUMBER: _ClassVar[int]
    SCALING_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: str
    context_length: int
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    abilities: Abilities
    scaling: Scaling
    changes: _containers.RepeatedCompositeFieldContainer[ScalingChange]
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[str] = ..., context_length: _Optional[int] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ..., abilities: _Optional[_Union[Abilities, _Mapping]] = ..., scaling: _Optional[_Union[Scaling, _Mapping]] = ..., changes: _Optional[_Iterable[_Union[ScalingChange, _Mapping]]] = ...) -> None: ...

class Scaling(_message.Message):
    __slots__ = ("desired", "current", "reason", "held_because", "age_ms", "wanted")
    class WantedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DESIRED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    HELD_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    desired: int
    current: int
    reason: str
    held_because: str
    age_ms: int
    wanted: _containers.ScalarMap[str, float]
    def __init__(self, desired: _Optional[int] = ..., current: _Optional[int] = ..., reason: _Optional[str] = ..., held_because: _Optional[str] = ..., age_ms: _Optional[int] = ..., wanted: _Optional[_Mapping[str, float]] = ...) -> None: ...

class ScalingChange(_message.Message):
    __slots__ = ("before", "after", "reason", "at_ms")
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    before: int
    after: int
    reason: str
    at_ms: int
    def __init__(self, before: _Optional[int] = ..., after: _Optional[int] = ..., reason: _Optional[str] = ..., at_ms: _Optional[int] = ...) -> None: ...

class Abilities(_message.Message):
    __slots__ = ("tools", "reasoning", "effort")
    TOOLS_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    tools: bool
    reasoning: bool
    effort: bool
    def __init__(self, tools: _Optional[bool] = ..., reasoning: _Optional[bool] = ..., effort: _Optional[bool] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("name", "engine", "connected", "draining", "running", "waiting", "capacity", "kv_use")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    KV_USE_FIELD_NUMBER: _ClassVar[int]
    name: str
    engine: str
    connected: bool
    draining: bool
    running: int
    waiting: int
    capacity: int
    kv_use: float
    def __init__(self, name: _Optional[str] = ..., engine: _Optional[str] = ..., connected: _Optional[bool] = ..., draining: _Optional[bool] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., capacity: _Optional[int] = ..., kv_use: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...
