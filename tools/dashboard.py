"""Writes deploy/grafana/openai_bls.json, a Grafana dashboard: the panels are the table below.

    python -m tools.dashboard

A test compares the file with what this would write, another one its queries with what a server really exports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "openai_bls.json"
MODEL = 'model_name=~"$model_name"'
RATE = "$__rate_interval"
COLUMNS, WIDTH, HEIGHT = 3, 8, 7  # Grafana's grid is 24 wide
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(NamedTuple):
    """A diagram over time.

    Attributes:
        unit: Grafana's name of it.
        queries: legend → PromQL.
    """

    title: str
    unit: str
    queries: dict[str, str]


def rate(name: str, by: str = "", where: str = MODEL) -> str:
    """Per second, added up over all instances and servers."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{where}}}[{RATE}]))"


def quantiles(name: str) -> dict[str, str]:
    buckets = rate(f"{name}_bucket", "le")
    return {f"p{share:g}": f"histogram_quantile({share / 100:g}, {buckets})" for share in (50, 90, 99)}


def mean(name: str) -> dict[str, str]:
    return {"mean": f"{rate(f'{name}_sum')} / {rate(f'{name}_count')}"}


def level(name: str, where: str = MODEL) -> str:
    return f"sum ({name}{{{where}}})"


PANELS = (
    Panel(
        "Requests answered",
        "reqps",
        {"{{finished_reason}}": rate("openai_bls_request_success_total", "finished_reason")},
    ),
    Panel(
        "Errors",
        "reqps",
        {
            "{{status}} {{error}}": rate(
                "openai_bls_request_errors_total", "status, error", 'model_name=~"$model_name|unknown"'
            )
        },
    ),
    Panel(
        "Rejected, cancelled",
        "reqps",
        {
            "rejected: {{reason}}": rate("openai_bls_request_rejected_total", "reason", ""),
            "cancelled": rate("openai_bls_request_cancelled_total"),
        },
    ),
    Panel("Time to first token", "s", quantiles("openai_bls_time_to_first_token_seconds")),
    Panel("Inter-token latency", "s", quantiles("openai_bls_inter_token_latency_seconds")),
    Panel("Whole request", "s", quantiles("openai_bls_e2e_request_latency_seconds")),
    Panel("Time in the engine's queue", "s", quantiles("openai_bls_request_queue_time_seconds")),
    Panel("Time per output token, by request", "s", quantiles("openai_bls_request_time_per_output_token_seconds")),
    Panel(
        "Requests under way",
        "short",
        {
            "running": level("openai_bls_num_requests_running"),
            "waiting": level("openai_bls_num_requests_waiting"),
            "places": level("openai_bls_request_places", ""),
        },
    ),
    Panel(
        "Tokens per second",
        "short",
        {
            "generated": rate("openai_bls_generation_tokens_total"),
            "prompt": rate("openai_bls_prompt_tokens_total"),
            "prompt, cached": rate("openai_bls_prompt_tokens_cached_total"),
        },
    ),
    Panel(
        "Prompt tokens per request",
        "short",
        {**quantiles("openai_bls_request_prompt_tokens"), **mean("openai_bls_request_prompt_tokens")},
    ),
    Panel(
        "Generated tokens per request",
        "short",
        {**quantiles("openai_bls_request_generation_tokens"), **mean("openai_bls_request_generation_tokens")},
    ),
    Panel(
        "Engine: sequences",
        "short",
        {
            kind: level("nv_trt_llm_request_metrics", f'request_type="{kind}"')
            for kind in ("scheduled", "waiting", "context", "max")
        },
    ),
    Panel(
        "Engine: KV cache in use",
        "percentunit",
        {"{{model}}": 'max by (model) (nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction"})'},
    ),
    Panel(
        "Tool calls that could not be read", "short", {"per second": rate("openai_bls_tool_call_parse_failures_total")}
    ),
)


def target(at: int, legend: str, query: str) -> dict[str, Any]:
    return {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query, "legendFormat": legend}


def drawn(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"showPoints": "never"}}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [target(at, legend, query) for at, (legend, query) in enumerate(panel.queries.items())],
    }


def dashboard() -> dict[str, Any]:
    return {
        "uid": "openai-bls",
        "title": "openai_bls",
        "tags": ["llm", "triton"],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-30m", "to": "now"},
        "refresh": "10s",
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "model_name",
                    "type": "query",
                    "datasource": SOURCE,
                    "query": "label_values(openai_bls_request_success_total, model_name)",
                    "includeAll": True,
                    "allValue": ".*",
                    "multi": True,
                    "refresh": 2,
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": [drawn(number, panel) for number, panel in enumerate(PANELS)],
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
