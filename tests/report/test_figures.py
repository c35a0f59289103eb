"""Labels, styles, curves and the published figures."""

from __future__ import annotations

from engramlab.report.parts.figures import Bar, Line, bars, curves, escaped, percent, styles
from engramlab.report.parts.paper import figures, published


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
