"""What is made of measurements, without measuring."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import plot, table, usage, vocabulary
from bench.cases import gaps_while, read_record
from bench.figures import Figures, Times, median
from bench.stacks import CHECKPOINT
from bench.target import Target

TIMES = {"p50": 5.0, "p90": 6.0, "p99": 7.0, "max": 8.0, "count": 4}
FOUND = {
    "seconds": 2.0, "cpu_seconds": 0.5, "requests": 5, "answers": 4, "tokens": 1000, "events": 500, "bytes": 1,
    "errors": 1, "wrong": 2, "error": "why", "first_ms": TIMES, "gap_ms": None, "answer_ms": None,
}  # fmt: skip
ONE = Figures.of("a <system>", 4, FOUND, 2.0, {"nginx": 0.25, "tritonserver": 0.5}, {"nginx": 10.0})


def test_figures_of_what_the_load_generator_says() -> None:
    assert ONE.tokens_per_s == 500
    assert ONE.tokens_per_chunk == 2
    assert ONE.cpu == 0.75
    assert ONE.memory == 10
    assert ONE.first_ms.p99 == 7 and ONE.gap_ms.p99 is None
    assert ONE.generator_share == 0.25


def test_figures_survive_json() -> None:
    assert Figures.from_json(json.loads(json.dumps(ONE.json()))) == ONE


def test_a_median_is_of_each_figure_and_troubles_add_up() -> None:
    others = [replace(ONE, tokens_per_s=value, first_ms=Times(p50=value), error="") for value in (1.0, 3.0)]
    found = median([ONE, *others])
    assert found.tokens_per_s == 3
    assert found.first_ms.p50 == 3
    assert found.wrong == 6 and found.errors == 3 and found.error == "why"
    assert found.cpu_s_per_1000 == ONE.cpu_s_per_1000


def test_the_table_has_all_systems_and_says_what_went_wrong() -> None:
    more = replace(ONE, system="b", streams=16, errors=0, wrong=0, mode="x")
    text = table.markdown([replace(ONE, mode="x"), more])
    assert "| tokens/s | 4 | 16 |" in text
    assert "| a <system> | 500 | – |" in text
    assert "| b | – | 500 |" in text
    assert text.count("wrong texts") == 1


def test_the_plot_is_xml_with_a_line_for_each_system() -> None:
    figures = [replace(ONE, mode=mode, streams=count) for mode in ("x", "y") for count in (1, 16)]
    lines = ElementTree.fromstring(plot.svg(figures)).findall(".//{*}path[@fill='none']")
    diagrams = sum(all(diagram.value(each) is not None for each in figures) for diagram in plot.DIAGRAMS)
    assert len(lines) == 2 * diagrams > 0


def test_scales_keep_their_ends() -> None:
    for logarithmic in (True, False):
        scale = plot.Scale(1.0, 1000.0, 10.0, 50.0, logarithmic=logarithmic)
        assert scale.place(1.0) == 10 and scale.place(1000.0) == pytest.approx(50)
        assert all(1 <= mark <= 1000 for mark in scale.marks())


def test_words_are_one_token_each_wherever_they_stand() -> None:
    from tokenizers import Tokenizer

    words = vocabulary.words(CHECKPOINT / "tokenizer.json")
    decode = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json")).decode
    assert len(words) > 100
    assert decode([id_ for id_, _ in words]) == "".join(text for _, text in words)


def test_memory_and_time_of_this_process() -> None:
    own = os.getpid()
    assert own in usage.family(own)
    before = usage.cpu_seconds([own])[own]
    while usage.cpu_seconds([own])[own] == before:
        pass  # ends when the kernel has counted a tick of this loop
    found = usage.memory(own)
    assert 0 < found.private <= found.pss
    assert usage.cpu_seconds([2**22 + 1]) == {} == usage.pss([2**22 + 1])


@pytest.mark.parametrize("url", ["https://h/v1", "h:80/v1", "http://"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="wanted http"):
        Target.elsewhere(url, "m")


def test_a_server_elsewhere() -> None:
    found = Target.elsewhere("http://h:81/v1/", "m", "n", "secret", [os.getpid()])
    assert (found.name, found.host, found.port, found.path) == ("n", "h", 81, "/v1/chat/completions")
    assert found.header == "Authorization: Bearer secret"
    assert os.getpid() in found.pids
    assert "seed" not in found.body(5)


def test_a_line_of_the_table_is_id_and_text(tmp_path: Path) -> None:
    vocabulary.write_table(CHECKPOINT / "tokenizer.json", tmp_path / "words")
    first = (tmp_path / "words").read_text().splitlines()[0]
    number, _, text = first.partition(" ")
    assert int(number) >= 0 and text.startswith(" ")


def test_gaps_while_something_else_was_going_on(tmp_path: Path) -> None:
    (tmp_path / "record").write_text("gap 2.0 0.5\nanswer 1.0 1.6\ngap 1.2 0.5\ngap 0.9 0.2\ngap 3.0 0.1\n")
    gaps, spans = (read_record(tmp_path / "record", kind) for kind in ("gap", "answer"))
    assert spans == [(1.0, 1.6)]
    assert list(gaps_while(spans, gaps)) == [0.5, 0.5]
