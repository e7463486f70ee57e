from __future__ import annotations

import stat
from pathlib import Path

import pytest

from launcher import gateway, options, serve
from launcher.errors import LaunchError

MODULE, TEMPORARY = Path("/m/njs.so"), Path("/t")
LISTEN = gateway.Listen(rules=gateway.Rules(api_keys=["secret"]))


def test_every_value_can_be_rendered() -> None:
    values = gateway.values_for(gateway.Listen(), MODULE, TEMPORARY)
    text = gateway.render("\n".join(f"{name} @{name}@;" for name in values), values)
    assert "@" not in text
    assert 'MODULES load_module "/m/njs.so";' in text


def test_unknown_placeholders_are_all_named() -> None:
    with pytest.raises(LaunchError, match="unknown placeholders: A, B"):
        gateway.render("x @B@ @PORT@ @A@", {"PORT": "1"})


def test_comments_may_talk_about_placeholders() -> None:
    assert gateway.render("# @NAMES@ and @PORT@\nlisten @PORT@;", {"PORT": "1"}) == "# @NAMES@ and @PORT@\nlisten 1;"


@pytest.mark.parametrize("text", ["user@example.org", "@named_location", "a @lower@ b"])
def test_other_at_signs_stay(text: str) -> None:
    assert gateway.render(text, {}) == text


def test_an_ipv6_host_is_bracketed() -> None:
    assert gateway.values_for(gateway.Listen(host="::1"), MODULE, TEMPORARY)["HOST"] == "[::1]"


@pytest.mark.parametrize(("host", "address"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")])
def test_an_address_to_reach_a_server_on_this_machine(host: str, address: str) -> None:
    assert gateway.reachable(host) == address


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (["2026/01/01 10:00:00 [emerg] 12#12: bind() failed.", "later"], "bind() failed"),
        (["nginx: [emerg] unknown directive"], "unknown directive"),
        (["2026/01/01 10:00:00 [warn] 1#1: hm", "2026/01/01 10:00:00 [emerg] 1#1: that"], "that"),
        ([], "no message"),
    ],
)
def test_the_reason_in_a_log(log: list[str], reason: str) -> None:
    assert gateway.reason_in(log) == reason


def start(source: Path, run: Path) -> gateway.Gateway:
    return gateway.start(gateway.Nginx(Path("/bin/false"), MODULE), source, run, LISTEN)


def test_keys_are_private_and_a_refused_configuration_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / gateway.TEMPLATE).write_text("listen @HOST@:@PORT@; include @RUN@/keys.conf;")
    (tmp_path / "other.conf").write_text("@TLS@ssl on;\n@RATE@rate;")
    (tmp_path / gateway.OPENAPI).write_text("{}")
    with pytest.raises(LaunchError, match="nginx refuses its configuration: no message."):
        start(tmp_path, tmp_path / "run")
    keys = tmp_path / "run" / "keys.conf"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert (tmp_path / "run" / "nginx.conf").read_text() == "listen 127.0.0.1:9000; include ./keys.conf;"
    assert (tmp_path / "run" / "other.conf").read_text() == "# ssl on;\n# rate;"
    assert "secret" not in keys.read_text()


def test_a_missing_template(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="template .* is missing"):
        start(tmp_path, tmp_path / "run")


def test_every_rule_is_an_option_with_the_same_default() -> None:
    chosen = serve.settings_for(options.parse([], {}), lambda step: None)
    assert chosen.rules == gateway.Rules(api_keys=[], cors_origins=(), route_prefixes=["/v1", ""])


def tritons(monkeypatch: pytest.MonkeyPatch, *upstreams: str) -> dict[str, str]:
    """The files about them; the name "pods" has two addresses."""
    names = {"pods": ["10.0.0.5", "10.0.0.6"], "one": ["10.0.0.7"], "::1": ["::1"]}

    def look_up(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in names:
            raise OSError
        return [(0, 0, 0, "", (address, port)) for address in names[host]]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    files = gateway.included_files(gateway.Listen(upstreams=upstreams), "key", Path("/t"))
    return {name: files[name] for name in ("upstreams.conf", "hops.conf", "others.conf")}


@pytest.mark.parametrize(
    ("upstreams", "address"),
    [(["one:8000"], "10.0.0.7:8000"), (["one:1", "one:1"], "10.0.0.7:1"), (["[::1]:1"], "[::1]:1"), (["x:1"], "x:1")],
)
def test_a_single_triton_has_no_hop(monkeypatch: pytest.MonkeyPatch, upstreams: list[str], address: str) -> None:
    files = tritons(monkeypatch, *upstreams)
    assert files["upstreams.conf"] == f"server {address};\nkeepalive 256;\n"
    assert (files["hops.conf"], files["others.conf"]) == ("proxy_read_timeout 90s;\n", "")


def test_each_address_of_several_tritons_has_a_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    files = tritons(monkeypatch, "pods:1", "one:2")
    assert files["upstreams.conf"].count('server "unix:/t/hops/') == 3
    for number, address in enumerate(["10.0.0.5:1", "10.0.0.6:1", "10.0.0.7:2"], 1):
        assert f"upstream triton_{number} {{\nserver {address};" in files["hops.conf"]
        assert f'listen "unix:/t/hops/{number}" ' in files["hops.conf"]
        others = files["hops.conf"].split(f"upstream other_than_{number} {{")[1].split("}")[0]
        assert others.count("server ") == 2
        assert f"hops/{number}" not in others
        assert f'"unix:/t/hops/{number}" other_than_{number};' in files["others.conf"]


@pytest.mark.parametrize(
    ("arguments", "timeout"),
    [([], 90), (["--max-queue-seconds", "300"], 330), (["--max-queue-seconds", "300", "--upstream-timeout", "9"], 9)],
)
def test_a_triton_may_be_silent_for_longer_than_its_queue(arguments: list[str], timeout: int) -> None:
    assert serve.settings_for(options.parse(arguments, {}), lambda step: None).rules.upstream_timeout == timeout


RATES = [("10/s", "10r/s", "1"), ("30/m", "30r/m", "2"), ("1/m", "1r/m", "60")]


@pytest.mark.parametrize(("rate", "nginx", "retry_after"), RATES)
def test_rates(rate: str, nginx: str, retry_after: str) -> None:
    values = gateway.values_for(gateway.Listen(rules=gateway.Rules(rate_limit=rate)), MODULE, TEMPORARY)
    assert (values["RATE"], values["RATE_LIMIT"], values["RATE_RETRY_AFTER"]) == ("", nginx, retry_after)


@pytest.mark.parametrize(("size", "count"), [("512", 512), ("2k", 2048), ("3m", 3 * 2**20), ("1g", 2**30)])
def test_sizes(size: str, count: int) -> None:
    values = gateway.values_for(gateway.Listen(rules=gateway.Rules(max_backlog=size)), MODULE, TEMPORARY)
    assert values["MAX_BACKLOG"] == str(count)
