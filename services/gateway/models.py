"""headrace.v1.Models: what is served, as this gateway sees it."""

from typing import Any

import grpc

from services.api.headrace.v1 import models_pb2 as pb
from services.api.headrace.v1 import models_pb2_grpc
from services.backend.link import Link, LinkState
from services.backend.scaling import Change, Scaling
from services.gateway.deps import Deps
from services.gateway.metadata import authorization
from services.gateway.validate import resolve
from services.text.family import Abilities

Context = grpc.aio.ServicerContext[Any, Any]


class Models(models_pb2_grpc.ModelsServicer):
    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        await self._deps.keyring.identify(authorization(context))
        return pb.ListModelsResponse(models=[self._model(name) for name in sorted(self._deps.models)])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:
        await self._deps.keyring.identify(authorization(context))
        return self._model(resolve(request.name, self._deps.limits()))

    def _model(self, name: str) -> pb.Model:
        links = self._deps.directory.links(name)
        return pb.Model(
            name=name,
            revision=links[0].lease.revision if links else "",
            context_length=self._deps.limits()[name].context_length,
            replicas=[_replica(link) for link in links],
            abilities=_abilities(self._deps.models[name].family.abilities),
            **_scaling(self._deps.scalings.of(name)),
        )


def _scaling(told: tuple[Scaling, float] | None) -> dict[str, Any]:
    if told is None:
        return {}
    known, age = told
    scaling = pb.Scaling(
        desired=known.desired,
        current=known.current,
        reason=known.reason,
        held_because=known.held_because,
        age_ms=round(age * 1000),
        wanted=known.wanted,
    )
    return {"scaling": scaling, "changes": map(_change, known.changes)}


def _change(change: Change) -> pb.ScalingChange:
    return pb.ScalingChange(
        before=change.before, after=change.after, reason=change.reason, at_ms=round(change.at * 1000)
    )


def _abilities(abilities: Abilities) -> pb.Abilities:
    return pb.Abilities(tools=abilities.tools, reasoning=abilities.reasoning, effort=abilities.effort)


def _replica(link: Link) -> pb.Replica:
    return pb.Replica(
        name=link.lease.replica,
        engine=link.engine,
        connected=link.state in (LinkState.UP, LinkState.DRAINING),
        draining=link.state is LinkState.DRAINING,
        running=link.load.running,
        waiting=link.load.waiting,
        capacity=link.load.capacity,
        kv_use=link.load.kv_use,
    )
