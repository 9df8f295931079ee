# The image of Hubbub: the gateway, the operator and the load generator, static, and nothing else.
#
#   docker build --tag hubbub .                                   for this machine's architecture
#   docker build --tag hubbub --platform linux/arm64 .            for another one: cross-compiled, not emulated
#   docker build --tag hubbub --build-context compiled=FOLDER .   of binaries that scripts/image-root has put into FOLDER/image
#
# Both builders known to build it are BuildKit (docker build) and buildah.

ARG RUST_VERSION=1.95.0
FROM --platform=$BUILDPLATFORM docker.io/library/rust:${RUST_VERSION}-bookworm AS compiled
ARG RUST_VERSION
ARG TARGETARCH
# The toolchain of the image is the pinned one, so that none is fetched.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
WORKDIR /hubbub
COPY Cargo.toml Cargo.lock rust-toolchain.toml LICENSE ./
COPY crates crates
COPY scripts scripts
# What earlier builds compiled and fetched is kept by the builder, so that a change of the sources compiles only these.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/hubbub/target,sharing=locked \
    --mount=type=cache,target=/root/.cache/hubbub,sharing=locked \
    scripts/image-root /image "${TARGETARCH:-}"

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="Hubbub" \
      org.opencontainers.image.description="Chat rooms over WebSocket on Kubernetes: gateway, operator and load generator" \
      org.opencontainers.image.url="https://github.com/hubbub-dev/hubbub" \
      org.opencontainers.image.source="https://github.com/hubbub-dev/hubbub" \
      org.opencontainers.image.documentation="https://github.com/hubbub-dev/hubbub#readme" \
      org.opencontainers.image.vendor="Hubbub" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=compiled /image /
ENV PATH=/usr/local/bin
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT ["hubbub-gateway"]
