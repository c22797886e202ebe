# syntax=docker/dockerfile:1
# lntx and its tested versions, with the CPU build of torch:
#   docker build --tag lntx .
#   docker run --rm lntx canary
# For CUDA, name torch's index of the builds for your driver:
#   docker build --tag lntx --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /opt/lntx
# torch first and alone: it changes least, and it is nearly all of the image.
COPY constraints.txt ./
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY lntx lntx
COPY flows flows
RUN pip install --no-cache-dir --constraint constraints.txt . \
    && useradd --create-home --uid 1000 lntx \
    && install --directory --owner lntx /var/lib/lntx

USER 1000
# data/ and artifacts/ lie here: mount a volume.
ENV LNTX_ROOT=/var/lib/lntx
VOLUME /var/lib/lntx
HEALTHCHECK --interval=5m --timeout=1m CMD ["lntx", "doctor"]
ENTRYPOINT ["lntx"]
CMD ["--help"]
