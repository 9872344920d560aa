# The server's image: the server and, unless EMBEDDED_TRITON=false, the embedded Triton's environment. No torch.
# `make image` builds it and sends a study through it; docs/how-to/container.md tells how to run it.
#
# BASE needs Python 3.11 with its shared library (libpython3.11.so.1.0) and Debian's package manager.
ARG BASE=python:3.11-slim-bookworm

# ---- the environments, made where pip's leavings don't matter
FROM ${BASE} AS environments
ARG EMBEDDED_TRITON=true
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/limner

# the embedded Triton's own: its python backend needs numpy below 2
COPY requirements/triton.txt requirements/triton.txt
RUN if [ "${EMBEDDED_TRITON}" = true ]; then \
      python -m venv .triton && \
      .triton/bin/pip install --quiet --no-deps --only-binary :all: --requirement requirements/triton.txt; \
    fi

COPY requirements/server.txt requirements/server.txt
COPY deploy/link_cuda_runtime.py build/link_cuda_runtime.py
RUN python -m venv .venv && \
    .venv/bin/pip install --quiet --no-deps --only-binary :all: --requirement requirements/server.txt && \
    .venv/bin/python build/link_cuda_runtime.py

COPY pyproject.toml README.md LICENSE build/
COPY app build/app
COPY operators build/operators
RUN .venv/bin/pip install --quiet --no-deps ./build && \
    rm -r build requirements
COPY triton_models triton_models

# ---- what runs
FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Limner" \
      org.opencontainers.image.description="A clinical inference server beside a PACS: studies in by DICOM, segmentations out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# tini is process 1: it hands signals on and collects the children that the server's children leave behind.
# Its version is the distribution's, so that security updates of the base are not held up here.
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install -y --no-install-recommends tini && \
    rm -rf /var/lib/apt/lists/* && \
    useradd --uid 10001 --user-group --no-log-init --home-dir /var/lib/limner --create-home --shell /usr/sbin/nologin limner && \
    chmod 0700 /var/lib/limner

COPY --from=environments /opt/limner /opt/limner
COPY deploy/image/limner.toml /etc/limner/limner.toml

# What is so in every container; settings say the rest. The root file system may be read-only with a tmpfs on /tmp.
ENV PATH=/opt/limner/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LIMNER__DATA_FOLDER=/var/lib/limner \
    LIMNER__MODEL_REPOSITORY=/opt/limner/triton_models \
    LIMNER__TRITON__PYTHON=/opt/limner/.triton/bin/python \
    LIMNER__LISTENER__HOST=0.0.0.0

# by number, so that Kubernetes can see that it is not root
USER 10001:10001
WORKDIR /var/lib/limner
VOLUME /var/lib/limner
EXPOSE 11112

# a real C-ECHO to its own listener
HEALTHCHECK --interval=30s --timeout=20s --start-period=180s --retries=3 \
  CMD ["limner", "check", "--listener", "--settings", "/etc/limner/limner.toml"]

ENTRYPOINT ["tini", "--", "limner"]
CMD ["serve", "--settings", "/etc/limner/limner.toml"]
