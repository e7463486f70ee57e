"""HTTPS and HTTP/2 with a certificate made here, which may be renewed while the gateway runs."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx2
import pytest
import requests
import trustme

from launcher import gateway, probe
from tests.gateway.conftest import Start
from tests.gateway.upstream import Upstream
from tests.gateway.wire import CHAT, TIMEOUT, eventually, post

CA = "ca.pem"
"""Beside each certificate: what its clients trust."""


def make_certificate(folder: Path, name: str = "localhost") -> dict[str, Path]:
    """A new one in each call, by an authority of its own."""
    certificate, key = folder / "server.crt", folder / "server.key"
    authority = trustme.CA()
    issued = authority.issue_cert(name, "127.0.0.1")
    authority.cert_pem.write_to_path(folder / CA)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return {"tls_cert": certificate, "tls_key": key}


def test_https(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    url = start(**files)
    upstream.events("{}")
    assert post(url, verify=tmp_path / CA).status_code == 200
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


@pytest.mark.parametrize("http2", [True, False])
def test_http2(start: Start, upstream: Upstream, tmp_path: Path, http2: bool) -> None:
    """For those who ask for it. A refusal must not wait for the body, nor the body for the refusal."""
    url = start(**make_certificate(tmp_path), max_body="64k")
    upstream.events('data: {"n":1}\n\n', "data: [DONE]\n\n")
    context = ssl.create_default_context(cafile=tmp_path / CA)
    with httpx2.Client(http2=http2, verify=context, timeout=TIMEOUT) as client:
        for _ in range(2):
            answer = client.post(url + CHAT, content=b'{"stream":true}')
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
            assert answer.text == 'data: {"n":1}\n\ndata: [DONE]\n\n'
        large, too_large = b" " * 60_000, b" " * 120_000
        assert client.post(url + "/nope", content=large).status_code == 404
        for body in (too_large, iter([large, large])):
            refused = client.post(url + CHAT, content=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "content_too_large")
        assert client.get(url + "/health/live").json() == {"status": "live"}


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
            return post(url, verify=tmp_path / CA).status_code == 200
        except requests.exceptions.SSLError:
            return False

    assert eventually(trusted)


def test_the_launcher_trusts_its_own_certificate_by_any_name(start: Start, upstream: Upstream, tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "api.example.org")
    url = start(**files)
    upstream.events('{"data":[{"id":"m"}]}')
    door = probe.Door(f"{url.replace('127.0.0.1', 'localhost')}/v1", tls=gateway.trusting(files["tls_cert"]))
    assert probe.wait_until_working(door, 5, lambda: None).model == "m"
