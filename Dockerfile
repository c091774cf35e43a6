# The image for those who have a container engine; `make image` writes the same one without.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY LICENSE README.md ./
# The manifest names targets that are not part of the image.
RUN mkdir -p demo benches tests/engine && for f in demo benches tests/engine; do echo 'fn main() {}' > $f/main.rs; done \
    && cargo build --release --locked --bin clustersync
# The loader and the libraries that the binary links, under their own names.
RUN mkdir -p /image/usr/bin /image/usr/share/doc/clustersync /image/etc \
    && cp target/release/clustersync /image/usr/bin/ \
    && cp LICENSE /image/usr/share/doc/clustersync/ \
    && ldd target/release/clustersync | grep -oE '/[^ ]+' | while read -r file; do \
         mkdir -p "/image$(dirname "$file")" && cp -L "$file" "/image$file"; done \
    && echo 'clustersync:x:65532:65532::/:/sbin/nologin' > /image/etc/passwd \
    && echo 'clustersync:x:65532:' > /image/etc/group \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf

FROM scratch
COPY --from=build /image /
USER 65532:65532
ENTRYPOINT ["/usr/bin/clustersync"]
LABEL org.opencontainers.image.title=clustersync org.opencontainers.image.licenses=Apache-2.0
