"""Metrics of a running server: counts are what was sent, with two instances; dashboard and alerts ask for no others."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
import yaml

from launcher.gateway import Rules
from metric_families import FAMILIES, GAUGE, HISTOGRAM
from tests.e2e.conftest import Server, eventually, serve
from tests.e2e.metrics_text import Sample, Scrape

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
INSTANCES, PLACES = 2, 3
LONG = list(range(300, 500))  # more than a block of the KV cache
ONCE = "openai_bls_request_success_total"


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Server]:
    """Two instances that take few requests at a time; their metrics are at the gateway."""
    # Slow enough that what fills the places still runs when the last one is taken.
    changes = {"openai_bls": {"max_requests": str(PLACES)}, "tensorrt_llm": {"step_interval_ms": "100"}}
    settings = {"instances": INSTANCES, "rules": Rules(metrics="open")}
    yield from serve("session", tmp_path_factory.mktemp("metered"), checkpoint, changes, **settings)


def at_rest(server: Server, url: str | None = None) -> Scrape:
    """The metrics once all that has happened is told."""
    found: list[Scrape] = []

    def settled() -> bool:
        found.append(Scrape(url or server.stack.metrics_url))
        under_way = sum(found[-1].total(f"openai_bls_num_requests_{state}") for state in ("running", "waiting"))
        if len(found) > 1 and settling(found[-1]) == settling(found[-2]) and not under_way:
            return True
        time.sleep(1.3)  # more than the time between two flushes
        return False

    assert eventually(settled, 60)
    return found[-1]


def settling(scrape: Scrape) -> list[Sample]:
    """What must not change any more. Of a burst of tokens the latencies are told bit by bit."""
    return [each for each in scrape.samples if each.name.startswith("openai_bls_") and "inter_token" not in each.name]


def test_counts_are_what_was_sent(metered: Server) -> None:
    before = at_rest(metered)
    prompts = [[300 + index, 301, 302] for index in range(12)]
    with ThreadPoolExecutor(PLACES) as pool:
        answers = list(pool.map(lambda prompt: metered.complete(prompt, max_tokens=6, ignore_eos=True), prompts))
    usage = [answer["usage"] for answer in answers]
    chat = metered.post(
        "/v1/chat/completions",
        {"model": metered.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "n": 2, "seed": 1},
    ).json()["usage"]
    metered.post("/v1/tokenize", {"model": metered.model, "prompt": "a b"})
    after = at_rest(metered)

    def grown(name: str, **labels: str) -> float:
        return after.total(f"openai_bls_{name}", **labels) - before.total(f"openai_bls_{name}", **labels)

    model = {"model_name": metered.model}
    assert grown("request_success_total", endpoint="completions", finished_reason="length", **model) == 12
    assert grown("request_success_total", endpoint="chat/completions", **model) == 1
    assert grown("request_success_total", endpoint="tokenize", finished_reason="none", **model) == 1
    generated = sum(each["completion_tokens"] for each in [*usage, chat])
    prompted = sum(each["prompt_tokens"] for each in [*usage, chat])
    assert grown("generation_tokens_total", **model) == grown("request_generation_tokens_sum", **model) == generated
    assert grown("prompt_tokens_total", **model) == grown("request_prompt_tokens_sum", **model) == prompted
    for name in ("time_to_first_token_seconds", "request_queue_time_seconds", "e2e_request_latency_seconds",
                 "request_prompt_tokens", "request_generation_tokens"):  # fmt: skip
        assert grown(f"{name}_count", **model) == 13, name
        assert grown(f"{name}_bucket", le="+Inf", **model) == 13, name
    assert 0 < grown("time_to_first_token_seconds_sum") <= grown("e2e_request_latency_seconds_sum")
    # Five gaps of each completion, if each token came by itself; steps that were polled together make fewer.
    assert 12 < grown("inter_token_latency_seconds_count", **model) <= 12 * 5 + 2 * 3
    assert grown("request_errors_total") == grown("request_cancelled_total") == 0


def test_both_instances_have_places(metered: Server) -> None:
    asked = {"model": metered.model, "prompt": "a b"}

    def both_have_told() -> bool:
        """With its first request each does; Triton gives requests to instances as it pleases."""
        with ThreadPoolExecutor(2 * PLACES) as pool:
            list(pool.map(lambda _: metered.post("/v1/tokenize", asked), range(8 * PLACES)))
        return at_rest(metered).total("openai_bls_request_places") == INSTANCES * PLACES

    assert eventually(both_have_told, seconds=60)
    assert len(at_rest(metered).values("model_instance")) == INSTANCES


def test_errors_have_status_and_kind_and_few_labels(metered: Server) -> None:
    before = at_rest(metered)
    for number in range(3):
        assert metered.post("/v1/completions", {"model": f"made-up-{number}", "prompt": "a"}).status_code == 404
    assert metered.post("/v1/completions", {"model": metered.model, "prompt": "a", "top_p": 7}).status_code == 400
    too_long = {"model": metered.model, "prompt": [300] * 5000}
    assert metered.post("/v1/completions", too_long).status_code == 400
    assert requests.get(f"{metered.url}/v1/models/made-up", timeout=10).status_code == 404
    after = at_rest(metered)
    name = "openai_bls_request_errors_total"
    for labels, count in (
        ({"status": "404", "error": "model_not_found", "endpoint": "completions", "model_name": "unknown"}, 3),
        ({"status": "400", "error": "invalid", "model_name": metered.model}, 1),
        ({"status": "400", "error": "context_length"}, 1),
        ({"status": "404", "endpoint": "models"}, 1),
    ):
        assert after.total(name, **labels) - before.total(name, **labels) == count, labels
    assert after.values("model_name") == {metered.model, "unknown"}
    assert after.values("endpoint") <= {"completions", "chat/completions", "tokenize", "models"}
    assert after.total(ONCE) == before.total(ONCE)


def test_gauges_full_places_429_and_clients_that_leave(metered: Server) -> None:
    before = at_rest(metered)
    body = {"model": metered.model, "prompt": "go", "max_tokens": 1900, "stream": True, "ignore_eos": True}
    streams, refused = [], 0
    with ExitStack() as held:
        while len(streams) < INSTANCES * PLACES:  # Triton gives requests to instances as it pleases
            answer = held.enter_context(requests.post(metered.completions_url, json=body, stream=True, timeout=60))
            if answer.status_code == 429:
                refused += 1
            else:
                pieces = answer.iter_content(64)  # whoever drops it leaves
                assert answer.status_code == 200 and next(pieces)
                streams.append(pieces)
        answer = metered.post("/v1/completions", body | {"max_tokens": 2})
        assert answer.status_code == 429 and "Retry-After" in answer.headers
        running = {"name": "openai_bls_num_requests_running", "model_name": metered.model}
        assert eventually(lambda: Scrape(metered.stack.metrics_url).total(**running) == len(streams))
    after = at_rest(metered)
    rejected = {"name": "openai_bls_request_rejected_total", "reason": "queue_full"}
    assert after.total(**rejected) - before.total(**rejected) == refused + 1
    errors = {"name": "openai_bls_request_errors_total", "status": "429", "error": "queue_full"}
    assert after.total(**errors) - before.total(**errors) == refused + 1
    left = {"name": "openai_bls_request_cancelled_total", "endpoint": "completions", "model_name": metered.model}
    assert after.total(**left) - before.total(**left) == len(streams)


def asked_in(text: str) -> set[str]:
    """Metrics that queries name; recorded ones have a colon in their names."""
    return set(re.findall(r"\b(?:openai_bls_|nv_)\w+(?!\w*:)", text))


def test_dashboard_and_alerts_ask_for_what_there_is(metered: Server) -> None:
    for _ in range(2):  # the second time the prompt is in the cache
        metered.complete(LONG, max_tokens=2)
    there = at_rest(metered, metered.url + "/metrics")  # at the gateway
    assert there.names() == at_rest(metered).names()
    dashboard = json.loads((DEPLOY / "grafana" / "openai_bls.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    queries += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    asked = asked_in("\n".join(queries))
    assert len(asked) > 15
    assert asked <= there.names()


def test_every_family_is_there(metered: Server) -> None:
    names = at_rest(metered).names()
    for name, family in FAMILIES.items():
        assert (f"{name}_bucket" if family.kind == HISTOGRAM else name) in names, name
    text = requests.get(metered.stack.metrics_url, timeout=10).text
    for name, family in FAMILIES.items():
        assert f"# TYPE {name} {family.kind}\n" in text and f"# HELP {name} {family.about}\n" in text


def test_the_engines_families_are_those_of_tensorrt_llm(metered: Server) -> None:
    there = at_rest(metered)
    model = {"model": "tensorrt_llm", "version": "1"}
    for name, label, values in (
        ("nv_trt_llm_request_metrics", "request_type", "active max scheduled context waiting"),
        ("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "max free used tokens_per reused fraction"),
        ("nv_trt_llm_inflight_batcher_metrics", "inflight_batcher_specific_metric",
         "total_context_tokens generation_requests micro_batch_id paused_requests"),
        ("nv_trt_llm_runtime_memory_metrics", "memory_type", "cpu"),
        ("nv_trt_llm_general_metrics", "general_type", "timestamp iteration_counter"),
    ):  # fmt: skip
        labels = [each.labels for each in there.samples if each.name == name]
        assert {each[label] for each in labels if model.items() <= each.items()} == set(values.split()), name


def test_one_request_at_a_time_counts_as_well(single_server: Server) -> None:
    before = at_rest(single_server)
    for index in range(6):
        single_server.complete([300 + index], max_tokens=3, ignore_eos=True)
    after = at_rest(single_server)
    model = {"model_name": single_server.model}
    for name in (ONCE, "openai_bls_time_to_first_token_seconds_count", "openai_bls_e2e_request_latency_seconds_count"):
        assert after.total(name, **model) - before.total(name, **model) == 6, name
    tokens = "openai_bls_generation_tokens_total"
    assert after.total(tokens, **model) - before.total(tokens, **model) == 18
    assert all(after.total(name) == 0 for name, family in FAMILIES.items() if family.kind == GAUGE and "_num_" in name)
