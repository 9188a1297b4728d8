# syntax=docker/dockerfile:1
# The gateway, the command and what `helm test` runs: no engine, no compiler, no pip.
#   docker build --file deploy/images/gateway.Dockerfile --tag headrace/gateway:VERSION .
# A release gives PYTHON_IMAGE with its digest: python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
COPY deploy/requirements/gateway.txt /build/
RUN python -m venv --without-pip /opt/headrace \
    && python -m pip --python /opt/headrace/bin/python --disable-pip-version-check --no-cache-dir install \
    --no-deps --require-hashes --only-binary :all: --requirement /build/gateway.txt

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headrace gateway" \
    org.opencontainers.image.description="gRPC endpoint for open-weight language models: the gateway and its command" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
RUN python -m pip uninstall --yes --root-user-action ignore pip \
    && groupadd --gid 10001 headrace \
    && useradd --uid 10001 --gid 10001 --home-dir /home/headrace --create-home --shell /usr/sbin/nologin headrace \
    && mkdir /models && chown 10001:10001 /models
COPY --from=packages /opt/headrace /opt/headrace
COPY --chmod=755 deploy/images/headrace /opt/headrace/bin/headrace
COPY services /app/services
COPY cluster /app/cluster
COPY deploy/__init__.py /app/deploy/__init__.py
COPY deploy/local /app/deploy/local
COPY deploy/survey /app/deploy/survey
# Nothing is written beside the code: the root may be read-only, with volumes at /tmp and /models.
ENV PATH=/opt/headrace/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 50051 50052 9464
CMD ["python", "-m", "services.gateway"]
