# syntax=docker/dockerfile:1
# Ray's head and workers on NVIDIA GPUs: vLLM's own image, Ray beside it, and the replicas' code.
#   docker build --file deploy/images/engine.Dockerfile --tag headrace/engine:VERSION .
# A release gives VLLM_IMAGE with its digest: vllm/vllm-openai:v0.32.0@sha256:...
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${VLLM_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headrace engine" \
    org.opencontainers.image.description="Ray Serve replicas with vLLM on NVIDIA GPUs" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
USER root
# KubeRay's probes and start-up want bash and wget.
RUN apt-get update && apt-get install --yes --no-install-recommends bash wget && rm -rf /var/lib/apt/lists/* \
    && { command -v python || ln -s "$(command -v python3)" /usr/local/bin/python; } \
    && groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid 10001 --home-dir /home/headrace --create-home --shell /bin/bash headrace \
    && mkdir /models && chown 10001:10001 /models
COPY deploy/requirements/engine.txt deploy/images/check_engine.py /build/
# engine.txt has no torch, no CUDA and no vLLM, and --no-deps brings none; what the image had of them is as before, or
# the build ends. openai-harmony and oss-harmony are one module: the last that is installed wins.
RUN python /build/check_engine.py before \
    && python -m pip --disable-pip-version-check --no-cache-dir uninstall --yes --break-system-packages openai-harmony \
    && python -m pip --disable-pip-version-check --no-cache-dir install --break-system-packages \
    --no-deps --require-hashes --only-binary :all: --requirement /build/engine.txt \
    && python /build/check_engine.py after
COPY --chmod=755 deploy/images/headrace /usr/local/bin/headrace
COPY services /app/services
COPY cluster /app/cluster
COPY deploy/__init__.py /app/deploy/__init__.py
COPY deploy/local /app/deploy/local
COPY deploy/survey /app/deploy/survey
# Engines compile kernels below HOME and Ray writes to /tmp: the chart mounts a volume at both.
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    VLLM_NO_USAGE_STATS=1
WORKDIR /app
USER 10001:10001
EXPOSE 6379 8000 8080 8265 50061 52365
ENTRYPOINT []
CMD ["bash"]
