# The project with the packages of its lock, as a user without rights:
#   docker build --build-arg COMMIT=$(git rev-parse HEAD) --tag early-exit .
# No secret is built in: credentials come from the environment of the container.
FROM python:3.11.14-slim-bookworm

# git and make as on any machine; wget for KubeRay's health checks, whose login shells take their path from profile.d.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 early-exit \
    && install --directory --owner early-exit /app /results \
    && echo "PATH=/app/.venv/bin:\$PATH" > /etc/profile.d/early-exit.sh
USER 1000
WORKDIR /app

# The lock is complete, and pip cannot resolve a lock with extras in this mode: hence --no-deps.
COPY --chown=1000 requirements.lock ./
RUN python -m venv .venv \
    && .venv/bin/pip install --quiet --no-cache-dir --no-deps --require-hashes --requirement requirements.lock \
    && touch .venv/.installed

COPY --chown=1000 . .
# DVC works without git's history; results name this commit.
RUN printf '[core]\n    no_scm = true\n' > .dvc/config.local
ARG COMMIT=unknown
ENV PATH=/app/.venv/bin:$PATH EARLY_EXIT_COMMIT=$COMMIT OMP_NUM_THREADS=1
CMD ["python", "-m", "pipeline", "--help"]
