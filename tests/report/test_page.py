"""The page: complete, offline, escaped, and honest about what is missing."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from tests.support.synthetic import write_json, write_run

from engramlab.base import registry
from engramlab.base.errors import UserError
from engramlab.report import experiments, print_summary, write_report

TAGS = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> 北京"
HOSTILE = TAGS + " Zoë & \"q\" 'q' \u2028 \ud800 {{7*7}}"


class Page(HTMLParser):
    """What a browser would see: elements, text outside scripts, JSON figures."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.figures: list[dict] = []
        self.scripts = 0
        self._inside = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script" and dict(attrs).get("type") != "application/json":
            self.scripts += 1
        if tag == "script":
            self._inside = dict(attrs).get("type") or "script"

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.figures.append(json.loads(data))
        elif self._inside not in ("script", "style", "application/gzip"):
            self.words.append(data)


def render(tmp_path: Path, *runs: Path) -> Page:
    return Page(write_report(runs, tmp_path / "out" / "report.html"))


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in strings(each)]
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("demo")
    return render(path, write_run(path / "demo"))


def test_the_finding_comes_first(demo: Page) -> None:
    finding = (
        "multi5+permute: 87 % (81–91) of held-out questions answered exactly, where the commonest values have 5 %; "
        "single: 6 % (3–11), where the commonest values have 5 %, within noise of the commonest value."
    )
    strip = "data bioS, made-up people n 300 people seed 0 date 2026-01-02 commit 0123abcd"
    assert f"Knowledge extraction: demo {strip} {finding}" in demo.text


def test_every_part_is_there(demo: Page) -> None:
    for words in (
        "mean birth date birth city university major employer work city questions",
        "multi5+permute P_test 87.0 % 81–91 83.0 % 76–88 85.0 % 78–90 87.0 % 81–91 89.0 % 83–93 91.0 % 85–95 93.0 % 88–96 900",
        "multi5+permute P_test, chance 5.0 % 5.0 %",
        "In every row, mode: finetune.",
        "single pretrain 2,000 2,700,000 10,757 4 min 11 s 0.0500",
        "✗ wrong not Anya Briar Forger",
        "engramlab run knowledge-extraction --preset tiny --out demo",
        "commit 0123abcd",
        "torch 2.11.0",
        "seed 0",
        '"width": 128',
        "8 min 32 s",
    ):
        assert words in demo.text, words
    titles = [figure["layout"]["xaxis"]["title"]["text"] for figure in demo.figures]
    assert titles == ["questions answered exactly"] * 2 + ["optimiser steps"] * 4
    assert not [figure for figure in demo.figures if not figure["data"]]


def test_the_papers_figures_carry_their_source(demo: Page) -> None:
    source = "arXiv 2309.14316v3; bioS, N = 100k, 124M parameters"
    for words in ("multi5+permute mean 87.0 % 96.6 %", "single birth date 2.0 % 33.0 %"):
        assert words in demo.text
    assert f"In every row, source of the paper's figure: {source}." in demo.text
    bars = demo.figures[0]["data"]
    (paper,) = [trace for trace in bars if "arXiv 2309.14316v3" in trace.get("name", "")]
    assert paper["x"] == pytest.approx([96.6, 9.7])
    assert all(source in hover for hover in paper["hovertext"])
    assert paper["marker"]["pattern"]["shape"] == "/"


def test_the_four_study_curves(demo: Page) -> None:
    names = [trace["name"] for trace in demo.figures[2]["data"]]
    assert names == [f"{texts}, P_{group}" for texts in ("biographies", "questions") for group in ("train", "test")]


def test_nothing_is_fetched(demo: Page) -> None:
    for tag, attributes in demo.elements:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "base", "object", "img")
    policy = next(a["content"] for _, a in demo.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_hostile_text_stays_text(tmp_path: Path, demo: Page) -> None:
    name = "<b onclick=x> & single"
    run = write_run(
        tmp_path / "<i>run",
        {name: 0.5, "multi5": 0.4},
        attributes=["<s>capital", "major"],
        modes=["<u>m"],
        text=HOSTILE,
    )
    summary = json.loads((run / "summary.json").read_text())
    write_json(run / "summary.json", {**summary, "best": {name: HOSTILE}, "seed": HOSTILE})
    config = json.loads((run / "config.json").read_text())
    write_json(run / "config.json", {**config, "command": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}})
    page = render(tmp_path, run, write_run(tmp_path / "</script>2".replace("/", "∕"), text=HOSTILE))

    assert page.scripts == demo.scripts == 2
    assert not {"b", "i", "s", "u", "img"} & {tag for tag, _ in page.elements}
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    for words in (
        name,
        "<i>run",
        "<s>capital",
        TAGS,
    ):
        assert words in page.text, words
    assert "{{7*7}}" in page.text
    drawn = [
        text for figure in page.figures for text in strings({**figure, "layout": {**figure["layout"], "template": 0}})
    ]
    assert any("&lt;b onclick=x&gt; &amp; single" in text for text in drawn)
    assert any("&lt;i&gt;run" in text for text in drawn)
    # Plotly reads HTML in labels; the only tags left are the bold headings of our own.
    assert not [text for text in drawn if "<" in text.removeprefix("<b>").removesuffix("</b>")]


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "half", finished=False)
    with (run / "single" / "finetune" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9999, "lo')
    page = render(tmp_path, run)
    assert "No question was asked yet: run half is unfinished." in page.text
    assert page.text.count("Not measured yet: run half is unfinished.") == 1
    assert "Exact match by attribute, held-out people; Beside the paper)" in page.text
    assert "single finetune (so far) 400" in page.text
    assert len(page.figures) == 4


@pytest.mark.parametrize("file", ["config.json", "summary.json"])
def test_a_run_that_has_only_begun(tmp_path: Path, file: str) -> None:
    run = tmp_path / "begun"
    run.mkdir()
    write_json(run / file, {"experiment": "knowledge-extraction"})
    page = render(tmp_path, run)
    assert page.figures == []
    assert "Nothing trained" in page.text


def test_lines_lost_in_the_middle_are_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    with (run / "single" / "pretrain" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "l{"step": 3}\n{"step": 4, "loss": NaN}\n')
    assert "1 unreadable line was skipped in single/pretrain/metrics.jsonl of run demo." in render(tmp_path, run).text


def test_two_runs_are_compared(tmp_path: Path) -> None:
    first = write_run(tmp_path / "seed-0")
    second = write_run(tmp_path / "seed-1", {"single": 0.10, "multi5+permute": 0.91, "multi5": 0.5}, seed=1)
    page = render(tmp_path, first, second)
    assert "multi5+permute: 89 % (85–92) of held-out questions answered exactly" in page.text
    assert "above the commonest value" not in page.text.split("Can it be asked?")[0]
    assert page.text.count("(mean of 2 runs)") == 2
    assert "multi5+permute 2 99.0 % (99.0–99.0) 89.0 % (87.0–91.0) 85–92 5.0 %" in page.text
    assert "In every row, mode: finetune; P_test is: above the commonest value." in page.text
    assert "multi5 1 99.0 % 50.0 %" in page.text
    ticks = page.figures[0]["layout"]["yaxis"]["ticktext"]
    assert ticks == ["seed-0", "seed-1", "paper", "seed-1", "paper", "seed-0", "seed-1", "paper"]
    whiskers = page.figures[1]["data"][0]["error_x"]
    assert whiskers["visible"]
    assert whiskers["array"][0] == pytest.approx(3.6, abs=0.01)


def test_unlike_runs_are_never_averaged(tmp_path: Path) -> None:
    first = write_run(tmp_path / "people", {"single": 0.5})
    for name, change in (("products", {"facts": "products.csv"}), ("longer", {"people": 600}), ("again", {})):
        second = write_run(tmp_path / name, {"single": 0.1}, seed=0 if name == "again" else 1, options=change)
        page = render(tmp_path, first, second)
        assert "single (people): 50 % (42–58) of held-out questions answered exactly" in page.text
        assert f"single ({name}): 10 %" in page.text
        assert "mean of 2 runs" not in page.text
        for key, value in change.items():
            assert f"{key} {300 if key == 'people' else '–'} {value}" in page.text
        assert ("What these runs differ in" in page.text) == bool(change)


def test_chance_is_beside_every_share(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "table", {"single": 0.16, "multi5": 0.15}, chance=0.158))
    assert page.text.split("Can it be asked?")[0].count("Nothing beats the commonest value; single: 16 %") == 1
    strokes = [
        t for figure in page.figures[:2] for t in figure["data"] if t.get("name") == "always P_train's commonest value"
    ]
    assert [set(trace["x"]) for trace in strokes] == [{15.8}, {15.8}]


def test_a_model_that_has_not_learnt_its_own_questions_is_not_judged(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "short", {"single": 0.06}, learnt=0.27))
    assert (
        "single: 6 % (3–11) of held-out questions answered exactly, where the commonest values have 5 %, not trained long"
        in (page.text)
    )
    assert "single finetune 1 27.0 % 6.0 % 3–11 5.0 % not trained long enough to judge" in page.text


def test_runs_made_before_chance_was_kept_still_open(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "old", chance=None))
    assert "multi5+permute: 87 % (81–91) of held-out questions answered exactly; single: 6 % (3–11)." in page.text
    assert "not recorded in runs made before it was" in page.text


def test_held_out_questions_come_first_side_by_side_and_wrong_ones_are_there(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    for dataset, right in (("single", False), ("multi5+permute", True)):
        answers = [
            {"group": group, "attribute": attribute, "prompt": f"Q{k} {group}", "gold": "G", "answer": f"A {dataset}",
             "correct": right or group == "train"}
            for group in ("train", "test")
            for attribute in ("a", "b")
            for k in range(24)
        ]  # fmt: skip
        write_json(run / dataset / "examples.json", {"entries": ["Read."], "answers": answers})
    page = render(tmp_path, run)
    assert "Q0 test P_test G ✓ right A multi5+permute ✗ wrong A single" in page.text
    assert page.text.index("Q0 test") < page.text.index("Q0 train")
    assert "54 more questions are in examples.json." in page.text


def test_everyone_can_read_the_page(demo: Page, tmp_path: Path) -> None:
    plots = [attributes for tag, attributes in demo.elements if attributes.get("class") == "plot"]
    assert plots
    for one in plots:
        assert one["role"] == "img"
        assert len(one["aria-label"] or "") > 20
    assert "questions answered exactly" in (plots[0]["aria-label"] or "")
    assert "single" in (plots[1]["aria-label"] or "")
    figures = [tag for tag, _ in demo.elements if tag in ("figure", "figcaption")]
    assert figures.count("figure") == figures.count("figcaption")
    for _, attributes in demo.elements:
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    scopes = [attributes.get("scope") for tag, attributes in demo.elements if tag == "th"]
    assert {"row", "col"} <= set(scopes)
    assert None not in scopes
    page = write_report([write_run(tmp_path / "light")], tmp_path / "page.html")
    assert page.stat().st_size < 1_500_000
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_other_people_have_no_published_figures(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "countries", {"single": 0.2}, attributes=["capital", "currency"]))
    assert "The paper prints no figure for these datasets." in page.text
    assert "9.7 %" not in page.text
    assert "Published" not in page.text


def test_the_rewritten_corpus_has_its_own_figures(tmp_path: Path) -> None:
    page = render(tmp_path, write_run(tmp_path / "bior", {"single": 0.2}, family="bioR", modes=["mixed"]))
    assert "bioR single mean 20.0 % 77.7 % arXiv 2309.14316v3; bioR, N = 100k, 302M parameters" in page.text


def test_an_experiment_without_sections_still_has_its_rows(tmp_path: Path) -> None:
    for experiment in ("some-other", "page", "../x"):
        run = write_run(tmp_path / experiment.replace("/", "_"), experiment=experiment)
        page = render(tmp_path, run)
        assert "multi5+permute test work_city 0.93" in page.text
        assert "Finetuning: loss on the answers" in page.text


def test_the_page_of_an_experiment_is_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "from outside"
    folder.mkdir()
    (folder / "some_other.py").write_text(
        "from engramlab.report.parts.blocks import Section, Table, Text\n"
        "def headline(runs): return f'{len(runs)} run of another kind'\n"
        "def sections(runs): return [Section('Its own section', [Text('Said here.')])]\n"
        "def terminal(summary): return [Table(['its', 'own'], [['a', 'b']])]\n"
    )
    run = write_run(tmp_path / "run", experiment="some-other")
    with registry.added(experiments, folder):
        page = write_report([run], tmp_path / "page.html").read_text()
        assert all(words in page for words in ("1 run of another kind", "Its own section", "Said here."))
        out = io.StringIO()
        print_summary({"experiment": "some-other"}, Console(file=out))
        assert out.getvalue().split()[:2] == ["its", "own"]
    assert "Its own section" not in write_report([run], tmp_path / "page.html").read_text()


def test_the_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo")
    out = tmp_path / "report.html"
    assert write_report([run], out) == out
    before = out.read_bytes()
    with pytest.raises(UserError, match="does not exist"):
        write_report([tmp_path / "absent"], out)
    assert out.read_bytes() == before
    with pytest.raises(UserError, match="is a folder: give a file name"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="cannot write"):
        write_report([run], out / "below-a-file.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "report.html"]


def test_reports_need_no_model_code() -> None:
    code = (
        "import sys, engramlab.report;"
        "print([m for m in ('torch', 'transformers', 'engramlab.corpora') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
