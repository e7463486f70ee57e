# nginx with njs, and the launcher, which fills in its configuration. Python's standard library is all it needs.
FROM debian:12-slim
RUN apt-get update && apt-get install -y --no-install-recommends python3 nginx libnginx-mod-http-js \
    && rm -rf /var/lib/apt/lists/*
COPY launcher /opt/openai_bls/launcher
COPY gateway /opt/openai_bls/gateway
WORKDIR /opt/openai_bls
EXPOSE 9000
ENTRYPOINT [ "python3", "-m", "launcher.serve" ]
