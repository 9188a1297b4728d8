"""The public gRPC server of one worker: its services, its limits, its shutdown."""

import grpc
from grpc_reflection.v1alpha import reflection

from services.api.headrace.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from services.gateway.boundary import Boundary
from services.gateway.deps import Deps
from services.gateway.inference import Inference
from services.gateway.models import Models
from services.gateway.sessions import Sessions
from services.gateway.settings import GatewaySettings
from services.gateway.tls import Certificates

SERVICES = (
    inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name,
    models_pb2.DESCRIPTOR.services_by_name["Models"].full_name,
    sessions_pb2.DESCRIPTOR.services_by_name["Sessions"].full_name,
)

STREAMS_PER_CONNECTION = 1024
METADATA_BYTES = 8192


def options(settings: GatewaySettings) -> tuple[tuple[str, int], ...]:
    """Walls far above our own admission, against clients that mean harm. Times in milliseconds."""
    return (
        ("grpc.so_reuseport", 1),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.max_metadata_size", METADATA_BYTES // 2),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.http2.ping_timeout_ms", 5_000),  # 60 s by itself, whatever the line above says
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        # gRPC spreads the age by a tenth either way; the calls of an old connection end in peace.
        ("grpc.max_connection_age_ms", round(settings.max_connection_age * 1000)),
        ("grpc.max_connection_age_grace_ms", round(settings.connection_grace * 1000)),
    )


def build_server(deps: Deps) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=(Boundary(),), options=options(deps.settings))
    inference_pb2_grpc.add_InferenceServicer_to_server(Inference(deps), server)
    models_pb2_grpc.add_ModelsServicer_to_server(Models(deps), server)
    sessions_pb2_grpc.add_SessionsServicer_to_server(Sessions(deps), server)
    if deps.settings.reflection:
        reflection.enable_server_reflection((*SERVICES, reflection.SERVICE_NAME), server)
    return server


def bind(server: grpc.aio.Server, settings: GatewaySettings) -> int:
    """The bound port. Raises RuntimeError if the address is taken, OSError or ValueError if a TLS file
    cannot be read."""
    if settings.tls is None:
        return server.add_insecure_port(settings.listen)
    return server.add_secure_port(settings.listen, Certificates(settings.tls).credentials())
