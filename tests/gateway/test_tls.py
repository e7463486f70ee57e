"""HTTPS and HTTP/2 with a certificate made here, which may be renewed while the gateway runs."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import requests

from launcher import gateway, probe
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream
from tests.gateway.wire import CHAT, TIMEOUT, eventually, post

if shutil.which("openssl") is None:
    pytest.skip("openssl is not installed", allow_module_level=True)


def make_certificate(folder: Path, name: str = "localhost") -> dict[str, Path]:
    """As docs/gateway.md says."""
    certificate, key = folder / "server.crt", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "30", "-keyout", key, "-out", certificate, "-subj", f"/CN={name}",
         "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return {"tls_cert": certificate, "tls_key": key}


def offered(url: str, certificate: Path) -> str | None:
    """The protocol that is chosen for a client that knows both."""
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            return connection.selected_alpn_protocol()


def test_https(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    url = start(**files)
    upstream.events("{}")
    assert post(url, verify=files["tls_cert"]).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        post(url)
    plain = requests.get(url.replace("https", "http"), timeout=TIMEOUT)
    assert (plain.status_code, plain.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(start: Start, tmp_path: Path, version: ssl.TLSVersion) -> None:
    url = start(**make_certificate(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, version
    host, port = url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_http2(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    url = start(**files)
    assert offered(url, files["tls_cert"]) == "h2"
    upstream.events('data: {"n":1}\n\n', "data: [DONE]\n\n")
    told = subprocess.run(
        ["curl", "-s", "--http2", "--cacert", files["tls_cert"], "-w", "%{http_version}", "-d", '{"stream":true}',
         url + CHAT],
        check=True, capture_output=True, text=True, timeout=TIMEOUT,
    ).stdout  # fmt: skip
    assert told == 'data: {"n":1}\n\ndata: [DONE]\n\n2'


def test_a_certificate_is_renewed(
    start: Start, upstream: Upstream, tmp_path: Path, gateways: list[gateway.Gateway]
) -> None:
    files = make_certificate(tmp_path)
    url = start(**files)
    upstream.events("{}")
    old = files["tls_cert"].read_bytes()
    make_certificate(tmp_path, "other")
    new = files["tls_cert"].read_bytes()
    files["tls_cert"].write_bytes(old)
    with pytest.raises(gateway.LaunchError, match="nginx refuses its configuration: .*key values mismatch"):
        gateways[0].reload_if_changed()
    files["tls_cert"].write_bytes(new)
    assert gateways[0].reload_if_changed()

    def trusted() -> bool:
        try:
            return post(url, verify=files["tls_cert"]).status_code == 200
        except requests.exceptions.SSLError:
            return False

    assert eventually(trusted)


def test_the_launcher_trusts_its_own_certificate_by_any_name(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "api.example.org")
    url = start(**files)
    upstream.events('{"data":[{"id":"m"}]}')
    door = probe.Door(f"{url.replace('127.0.0.1', 'localhost')}/v1", tls=gateway.trusting(files["tls_cert"]))
    assert probe.wait_until_working(door, 5, lambda: None).model == "m"
