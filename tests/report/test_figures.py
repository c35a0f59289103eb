"""Labels, styles, curves and the published figures."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs_version

from engramlab.report.page import PLOTLY, plotly
from engramlab.report.parts.figures import Bar, Line, alike, bars, curves, described, draw, escaped, percent, styles
from engramlab.report.parts.maps import COLOURS, Map, Scale, heat
from engramlab.report.parts.paper import figures, published
from engramlab.report.parts.training import _loss_lines
from engramlab.report.rows import RunData


def test_labels_are_one_short_escaped_line() -> None:
    assert escaped("a <b>\n& c") == "a &lt;b&gt; &amp; c"
    # Cut before escaping, so that no entity is cut in two.
    assert escaped("<" * 50, 4) == "&lt;&lt;&lt;…"


def test_percentages() -> None:
    assert [percent(share) for share in (0.866, 1.0, None)] == ["86.6\u00a0%", "100.0\u00a0%", "–"]


def test_thirty_two_datasets_look_different() -> None:
    assert len(set(styles(f"multi{m}" for m in range(40)).values())) == 32


def test_long_curves_are_thinned_but_end_where_they_end() -> None:
    steps = [float(step) for step in range(80_001)]
    trace = curves([Line("loss", steps, steps, "#000000")], x="steps", y="loss").data[0]
    assert len(trace.x) <= 800
    assert (trace.x[-1], trace.y[-1]) == (80_000, 80_000)


def test_a_bar_without_a_value_says_so() -> None:
    figure = bars([("single", [Bar("this run", None)])], "share", bar="P_test")
    assert not figure.data
    assert "not measured" in [note.text for note in figure.layout.annotations]


def test_published_figures_are_shares_with_a_source() -> None:
    assert len(figures()) == 12
    assert all(
        0 < one.exact_match < 1 and "2309.14316" in one.source and "N = 100k" in one.source
        for one in figures().values()
    )
    mixed = published("single", "mixed")
    assert mixed is not None
    assert mixed.exact_match == 0.866
    assert published("multi7", "finetune") is None


def test_the_library_in_the_page_is_the_one_the_figures_are_made_for() -> None:
    """Its major version is that of the Python package, and it draws the three kinds of charts that are made here."""
    assert PLOTLY.removeprefix("plotly-cartesian-").split(".")[0] == get_plotlyjs_version().split(".")[0]
    script = gzip.decompress(base64.b64decode(plotly())).decode()
    assert script.startswith("/**\n* plotly.js (cartesian - minified)")
    for kind in ("scatter", "bar", "heatmap"):
        assert f'name:"{kind}"' in script or f'moduleType:"trace",name:"{kind}"' in script


def test_figures_side_by_side_have_one_range() -> None:
    pair = [("", curves([Line("a", [0, 1], values, "#000000")], x="x", y="y")) for values in ([0.0, 1.0], [0.0, 9.0])]
    ranges = {figure.layout.yaxis.range for _, figure in alike(pair)}
    assert ranges == {(-0.45, 9.45)}


def test_a_figure_is_in_the_common_style_and_a_word_that_plotly_does_not_know_is_refused() -> None:
    figure = draw([{"type": "bar", "x": ["a"], "y": [1]}], 300, y={"title": {"text": "nats"}}, barmode="group")
    assert figure.layout.template == curves([], x="x", y="y").layout.template
    assert (figure.layout.height, figure.layout.yaxis.title.text, figure.layout.barmode) == (300, "nats", "group")
    for wrong in (
        {"traces": [{"type": "bar", "heights": [1]}]},
        {"y": {"colour": "red"}},
        {"y": {"range": "wide"}},
        {"legends": 3},
    ):
        with pytest.raises(ValueError):
            draw(**{"traces": [], "height": 300, **wrong})


def test_every_map_has_its_place_and_its_title() -> None:
    of = [Map(name, ["a"], [0, 1], [[0.1, 0.2]]) for name in ("first", "second")]
    for names in (("one", "two"), ("three", "four")):
        figure = heat([(Scale(name, 0, 1), of) for name in names], x="position")
        titles = [place.text for place in figure.layout.annotations]
        assert titles == [f"{each}: {name}" for each in ("first", "second") for name in names]
        assert [(trace.xaxis, trace.yaxis) for trace in figure.data] == [
            (axis, axis.replace("x", "y")) for axis in ("x", "x3", "x2", "x4")
        ]
        below = [figure.layout[f"xaxis{k}"].title.text for k in ("", 2, 3, 4)]
        assert below == [None, None, "position", "position"]
        assert figure.layout.template == curves([], x="x", y="y").layout.template


def test_maps_have_whole_ticks_values_and_a_palette_of_one_hue() -> None:
    figure = heat([(Scale("share", 0, 1), [Map("demo", ["a", "b"], [0, 1], [[0.1, 0.2], [0.3, 0.4]])])], x="position")
    assert (figure.layout.xaxis.dtick, figure.layout.xaxis.tickformat) == (1, "d")
    assert figure.data[0].texttemplate == "%{z:.2f}"
    lightness = [sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in COLOURS]
    assert lightness == sorted(lightness, reverse=True)


def test_a_figure_is_told_in_words() -> None:
    figure = curves([Line("single <b>", [1, 2, 3], [0.5, 0.25, 0.125], "#000000")], x="steps", y="loss")
    assert described(figure, "Training") == "Training. loss against steps. single <b>: 0.5 at 1 to 0.125 at 3"
    shares = bars([("demo", [Bar("this run", 0.6, chance=0.1)])], "share", bar="P_test")
    assert described(shares, "") == "share. this run: 60.0 %. chance: 10.0\u00a0%"


def test_stages_differ_by_colour_and_dash() -> None:
    rows = [
        {"run": "r", "dataset": "tiny", "label": "tiny", "stage": stage, "step": step, "loss": 1.0}
        for stage in ("pretrain", "injection")
        for step in (1, 2)
    ]
    [first, second] = _loss_lines([RunData(Path("r"), "r", curves=rows)], lambda _: True)
    assert first.colour != second.colour
    assert first.dash != second.dash
