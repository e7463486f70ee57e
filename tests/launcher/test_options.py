from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launcher import gateway, options


def parse(*arguments: str, **environment: str) -> object:
    return options.parse(arguments, environment)


def value(name: str, *arguments: str, **environment: str) -> object:
    return getattr(parse(*arguments, **environment), name)


def test_the_command_line_wins_over_the_environment_over_the_default() -> None:
    assert value("port") == 9000
    assert value("port", OPENAI_BLS_PORT="9001") == 9001
    assert value("port", "--port", "9002", OPENAI_BLS_PORT="9001") == 9002


def test_adapters_are_named_by_a_path_that_holds_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapters").mkdir()
    monkeypatch.chdir(tmp_path)
    chosen = options.parse(["--lora", "adapters", "--lora-separator", "+"], {})
    assert options.parameters(chosen)["openai_bls"] == {"lora": str(tmp_path / "adapters"), "lora_separator": "+"}


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--port", "0"], {}, "'0' is not a whole number from 1 to 65535"),
        (["--port", "70000"], {}, "not a whole number"),
        (["--port", "x"], {}, "not a whole number"),
        (["--port", "1e3"], {}, "not a whole number"),
        ([], {"OPENAI_BLS_PORT": "-1"}, "OPENAI_BLS_PORT"),
        (["--instances", "0"], {}, "not a whole number"),
        (["--runner", "cuda"], {}, "'cuda' is not one of numpy, transformers"),
        (["--sessions", "yes"], {}, "not one of on, off"),
        (["--max-body", "16 MB"], {}, "not a size"),
        (["--host", "a b"], {}, "not an address"),
        (["--set", "a=b"], {}, "not MODEL.PARAMETER=VALUE"),
        (["--upstream", "a"], {}, "'a' is not HOST:PORT"),
        (["--upstream", "a:1;b"], {}, "is not HOST:PORT"),
        (["--upstream", ","], {}, "is not HOST:PORT"),
        (["--rate-limit", "10"], {}, "'10' is not a rate"),
        (["--cors-origins", 'https://a.org/"'], {}, "is not * or an origin"),
        (["--route-prefixes", "/v1,v2"], {}, "'v2' is not a path"),
        (["--route-prefixes", "/a b"], {}, "is not a path"),
        (["--metrics", "on"], {}, "not one of off, open, key"),
        (["--lora", "/nowhere"], {}, "there is no '/nowhere'"),
        (["--trace-url", "localhost:4318"], {}, "wanted off, or an address such as http://127.0.0.1:4318"),
        (["--trace-url", "http://me:secret@collector"], {}, "without user or password"),
        ([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://a"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (["--trace-ratio", "1.1"], {}, "is not a number from 0 to 1"),
        (["--log-prompts", "on"], {}, "'on' is not a size"),
        (["--por", "1"], {}, "unrecognized"),
    ],
)
def test_wrong_values_are_refused(
    arguments: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        options.parse(arguments, environment)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ") and told.count("\n") == 1


def test_help_names_every_option_its_variable_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--help"], {})
    text = capsys.readouterr().out
    for option in options.OPTIONS:
        assert option.flag in text
        assert option.variable in text
        assert option.default is None or f"default {option.default}" in " ".join(text.split())


def test_options_become_parameters_and_set_comes_last() -> None:
    chosen = options.parse(["--runner", "numpy", "--set", "tensorrt_llm.runner=x", "--set", "a.b=c=d"], {})
    assert options.parameters(chosen) == {"tensorrt_llm": {"runner": "x"}, "a": {"b": "c=d"}}


def test_a_collectors_address_with_a_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:secret@collector"})
    assert "secret" not in capsys.readouterr().err


def test_opentelemetrys_variables_say_where_traces_go() -> None:
    usual, traces = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
    assert value("trace_url", **{usual: "http://a:4318/"}) == "http://a:4318/v1/traces"
    assert value("trace_url", **{usual: "http://a", traces: "https://[::1]:1/x/v1/traces"}) == "https://[::1]:1/x/v1/traces"
    assert value("trace_url", **{usual: "http://a", "OPENAI_BLS_TRACE_URL": "off"}) == "off"
    assert value("trace_url", "--trace-url", "http://b", **{usual: "http://a"}) == "http://b/v1/traces"


def test_options_that_are_not_given_set_nothing() -> None:
    assert options.parameters(options.parse([], {})) == {}


def test_the_gateways_page_names_every_option_of_its_with_its_default() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
    rules = {each.name for each in dataclasses.fields(gateway.Rules)}
    for option in options.OPTIONS:
        if option.name not in rules:
            continue
        row = next(line for line in page.splitlines() if line.startswith("| `--") and f"`{option.flag}`" in line)
        assert option.default is None or f"`{option.default}`" in row, row
