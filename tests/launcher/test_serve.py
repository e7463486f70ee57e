from __future__ import annotations

import ast
import importlib.util
import json
import os
import shlex
from pathlib import Path

import pytest

from launcher import options, probe, serve, stack
from launcher.errors import LaunchError


def settings(*arguments: str) -> stack.Settings:
    return serve.settings_for(options.parse(arguments, {}), lambda step: None)


def test_without_a_model_no_parameter_is_set() -> None:
    assert settings().parameters == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "m"
    path.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (path / name).write_text("{}")
    return path


def test_a_model_folder_goes_to_both_models(folder: Path) -> None:
    assert settings("--model", str(folder)).parameters == {
        "tensorrt_llm": {"checkpoint": str(folder)},
        "openai_bls": {"tokenizer_dir": str(folder), "served_model_name": "m"},
    }


def test_the_served_name_can_be_chosen(folder: Path) -> None:
    assert settings("--model", str(folder), "--served-model-name", "n").parameters["openai_bls"] == {
        "tokenizer_dir": str(folder),
        "served_model_name": "n",
    }
    assert settings("--served-model-name", "n").parameters == {"openai_bls": {"served_model_name": "n"}}


def test_an_engine_without_sessions_needs_a_model(folder: Path) -> None:
    with pytest.raises(LaunchError, match="--sessions off needs --model"):
        settings("--sessions", "off")
    assert not settings("--sessions", "off", "--model", str(folder)).sessions


def test_the_transformers_runner_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only what is asked here: tools that run meanwhile look for modules, too.
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "torch" else find_spec(name, *rest)
    )
    with pytest.raises(LaunchError, match="needs torch: .* -m pip install torch"):
        settings("--runner", "transformers")


@pytest.mark.parametrize("given", ["", ",", " "])
def test_an_empty_key_does_not_open_the_server(given: str) -> None:
    with pytest.raises(LaunchError, match="API key is empty"):
        settings("--api-key", given)


def test_where_the_access_log_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = ("--run-dir", "run")
    for arguments, place, shown in [
        ((), Path("run/access.log"), False),
        (("--access-log", "on"), Path("run/access.log"), False),
        (("--access-log", "-"), Path("run/access.log"), True),
        (("--access-log", "off"), None, False),
        (("--access-log", "a.log"), tmp_path / "a.log", False),
    ]:
        chosen = settings(*run, *arguments)
        assert (chosen.access_log, chosen.access_log_shown, chosen.log_prompts) == (place, shown, 0)
    assert settings("--log-prompts", "4k").log_prompts == 4096


def test_several_keys() -> None:
    assert settings("--api-key", "a, b,").rules.api_keys == ["a", "b"]


REFUSED = [
    (("--restricted-api", " "), "--restricted-api is empty"),
    (("--restricted-api", "x"), "is not GROUPS HEADER VALUE"),
    (("--tls-cert", "c"), "belong together"),
    (("--gateway-only",), "--gateway-only needs --upstream"),
    (("--gateway-only", "--upstream", "a:1", "--metrics", "open"), "needs --metrics-upstream"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        settings(*arguments)


def test_rules_are_those_of_the_options(tmp_path: Path) -> None:
    chosen = settings(
        *("--api-keys-file", str(tmp_path / "k"), "--rate-limit", "5/s", "--cors-origins", "*", "--metrics", "key"),
        *("--route-prefixes", "/openai/v1,/", "--tls-cert", "c", "--tls-key", "k", "--max-connections", "7"),
    )
    rules = chosen.rules
    assert (rules.api_keys_file, rules.rate_limit, rules.cors_origins) == (tmp_path / "k", "5/s", ["*"])
    assert (rules.metrics, rules.route_prefixes, rules.max_connections) == ("key", ["/openai/v1", ""], 7)
    assert rules.tls_cert == Path("c").absolute()
    assert (stack.Stack(chosen).base_url, rules.asks_for_keys) == ("https://127.0.0.1:9000/openai/v1", True)


def test_one_option_has_all_three_trace() -> None:
    chosen = settings("--trace-url", "http://127.0.0.1:4318")
    url = "http://127.0.0.1:4318/v1/traces"
    assert (chosen.trace_url, chosen.rules.trace_ratio) == (url, "1")
    assert chosen.parameters == {"openai_bls": {"trace_url": url}}
    fewer = settings("--trace-url", "http://127.0.0.1:4318", "--trace-ratio", "0.05", "--trace-triton", "off")
    assert (fewer.trace_url, fewer.rules.trace_ratio) == (None, "0.05")
    assert fewer.parameters["openai_bls"]["trace_ratio"] == "0.05"


@pytest.mark.parametrize("arguments", [(), ("--trace-url", "off"), ("--trace-ratio", "0.5")])
def test_without_a_collector_nobody_traces(arguments: tuple[str, ...]) -> None:
    chosen = settings(*arguments)
    assert chosen.trace_url is None and chosen.rules.trace_ratio is None


def test_the_gateway_alone() -> None:
    chosen = settings("--gateway-only", "--upstream", "a:1, [::1]:2")
    assert (chosen.gateway_only, chosen.upstreams) == (True, ["a:1", "[::1]:2"])
    assert [endpoint.option for endpoint in chosen.endpoints()] == ["--port"]
    assert stack.Stack(chosen)._listen().upstreams == ["a:1", "[::1]:2"]
    beside = stack.Stack(settings("--upstream", "a:1", "--triton-http-port", "7"))
    assert beside._listen().upstreams == ["127.0.0.1:7", "a:1"]


def test_secrets_leave_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda program, arguments: started.append(arguments))
    monkeypatch.setattr("os.environ", {})
    serve.hide_secrets(["--port", "1", "--api-key", "k", "--restricted-api=health x-a b"])
    assert started[0][3:] == ["--port", "1"]
    assert os.environ == {"OPENAI_BLS_API_KEY": "k", "OPENAI_BLS_RESTRICTED_API": "health x-a b"}
    serve.hide_secrets(["--port", "1"])
    assert len(started) == 1


def test_only_the_gateway_leaves_this_machine() -> None:
    chosen = settings("--host", "0.0.0.0", "--triton-grpc-port", "8001")
    assert [endpoint.host for endpoint in chosen.endpoints()] == ["0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1"]


def test_run_folders_differ_by_port() -> None:
    assert settings("--port", "1").run_dir != settings("--port", "2").run_dir


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("with_key", [True, False])
def test_examples_are_valid_shell_and_python(chat: bool, with_key: bool) -> None:
    name = 'it\'s a "model"'
    text = serve.examples("http://127.0.0.1:9000/v1", probe.Working(name, chat), with_key)
    curl = next(line for line in text.splitlines() if line.startswith("curl"))
    words = shlex.split(curl)
    assert words[1] == f"http://127.0.0.1:9000/v1/{'chat/completions' if chat else 'completions'}"
    assert json.loads(words[-1])["model"] == name
    assert ("$OPENAI_API_KEY" in curl) == with_key
    python = text.split("# from Python (pip install openai)\n")[1].split("\nCtrl-C")[0]
    assert name in [node.value for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Constant)]


def test_an_engine_elsewhere_is_not_made_here(folder: Path) -> None:
    found = settings("--engine-url", "http://h:8000", "--model", str(folder))
    assert found.engines == {}
    assert found.parameters == {
        "openai_bls": {"engine_url": "http://h:8000", "tokenizer_dir": str(folder), "served_model_name": "m"}
    }


@pytest.mark.parametrize(
    ("further", "told"),
    [([], "needs --model"), (["--models-file", "m.json"], "do not go together")],
)
def test_an_engine_elsewhere_needs_a_tokenizer_here(further: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"models": []}')
    further = [str(tmp_path / each) if each.endswith("json") else each for each in further]
    with pytest.raises(LaunchError, match=told):
        settings("--engine-url", "http://h:8000", *further)


def test_an_engines_address_with_a_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.parse(["--engine-url", "me:secret@host"], {})
    assert "secret" not in capsys.readouterr().err
