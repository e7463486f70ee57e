"""deploy/ is what the tables say, and Prometheus can read it. `python -m tools.dashboard` writes the dashboard anew."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from engine.metrics import FAMILIES as ENGINE_FAMILIES
from launcher.triton import TRACES
from metric_families import FAMILIES, HISTOGRAM
from tools import dashboard

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
COMMANDS = ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]


def known() -> set[str]:
    """Names that a scrape has."""
    own: set[str] = set()
    for name, family in FAMILIES.items():
        own |= {f"{name}_{part}" for part in ("bucket", "sum", "count")} if family.kind == HISTOGRAM else {name}
    return own | set(ENGINE_FAMILIES)


def asked(query: str) -> set[str]:
    """The metrics that a query names; those with a colon are made by rules."""
    return set(re.findall(r"\b(?:openai_bls_|nv_)\w+(?![\w:])", query))


def test_the_dashboard_is_up_to_date() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text()


@pytest.mark.parametrize("panel", dashboard.PANELS, ids=lambda panel: panel.title)
def test_panels_ask_for_metrics_and_labels_that_exist(panel: dashboard.Panel) -> None:
    for query in panel.queries.values():
        names = asked(query)
        assert names and names <= known()
        labels = {label for name in names for label in labels_of(name)} | {"le"}
        assert set(re.findall(r"(\w+)=~?\"", query)) | groups(query) <= labels, query


def labels_of(name: str) -> tuple[str, ...]:
    family = FAMILIES.get(name) or FAMILIES.get(re.sub("_(bucket|sum|count)$", "", name))
    return family.labels if family else ("model", "version", ENGINE_FAMILIES[name][0])


def groups(query: str) -> set[str]:
    return {label.strip() for found in re.findall(r"by \(([^)]*)\)", query) for label in found.split(",")}


def test_every_family_has_a_panel() -> None:
    queries = "\n".join(query for panel in dashboard.PANELS for query in panel.queries.values())
    assert [name for name in FAMILIES if name not in queries] == []


def test_rules_ask_for_metrics_that_exist() -> None:
    rules = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert asked(rule["expr"]) <= known(), rule
            assert ("alert" in rule) == ("annotations" in rule and "severity" in rule.get("labels", {}))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with the package prometheus")
@pytest.mark.parametrize("command", COMMANDS)
def test_prometheus_can_read_them(command: str) -> None:
    done = subprocess.run(["promtool", *command.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_mounts_and_builds_what_is_there() -> None:
    compose = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert set(services) == {"triton", "gateway", "prometheus", "grafana", "jaeger"}
    for service in services.values():
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), mount
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    targets = [target for job in scraped for static in job["static_configs"] for target in static["targets"]]
    assert {target.split(":")[0] for target in targets} <= set(services)


def test_compose_traces_as_the_launcher_does() -> None:
    services = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    collector = {services[name]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] for name in ("triton", "gateway")}
    assert collector == {"http://jaeger:4318"}
    wanted = [*TRACES, "--trace-config=opentelemetry,url=http://jaeger:4318/v1/traces"]
    assert [each for each in services["triton"]["command"] if "trace-config" in each] == wanted
