# The project with the packages of its lock, as a user without rights:
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) --tag early-exit .
FROM python:3.11-slim-bookworm

# git and make as on any machine; wget for the health checks of KubeRay.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 early-exit \
    && install --directory --owner early-exit /app
USER early-exit
WORKDIR /app

COPY --chown=early-exit Makefile requirements.lock ./
RUN UV_NO_CACHE=1 make install

COPY --chown=early-exit . .
# DVC works without git's history; results name this commit.
RUN printf '[core]\n    no_scm = true\n' > .dvc/config.local
ARG COMMIT=unknown
ENV PATH=/app/.venv/bin:$PATH EARLY_EXIT_COMMIT=$COMMIT OMP_NUM_THREADS=1
CMD ["python", "-m", "pipeline", "--help"]
