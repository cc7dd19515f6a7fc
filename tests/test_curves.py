"""reporting/curves.py: the figure shows each run's losses, and its labels can be read."""
import itertools
import math

import numpy as np
import pytest

from reporting import curves, figures


def curve(label, strategy="scratch", losses=(5.0, 4.0), last=1e11, unigram=4.0, finished=True):
    """A Curve whose last losses stand at rising FLOPs, up to `last`."""
    n = len(losses)
    points = [(last * (i + 1) / n, loss) for i, loss in enumerate(losses)]
    return curves.Curve(label, strategy, points, unigram, 1.3, finished)


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(panels) -> the axes of the figure that was drawn."""
    pyplot = figures.pyplot()
    with monkeypatch.context() as patch:
        patch.setattr(pyplot, "close", lambda figure: None)

        def draw(panels):
            curves.draw_curves(panels, tmp_path / "curves.png")
            return pyplot.gcf().axes
        yield draw
    pyplot.close("all")


def labels_of(axes):
    """{label: its box in pixels} as they are printed."""
    renderer = axes.figure.canvas.get_renderer()
    return {text.get_text(): super(type(text), text).get_window_extent(renderer)
            for text in axes.texts}


def test_a_curve_shows_the_losses_at_their_flops(drawn):
    axes, = drawn({"stories": [curve("1 a"), curve("2 b", "kd", (5, 3, 2), finished=False)]})
    lines = {tuple(line.get_ydata()): line for line in axes.get_lines()}
    whole, begun = lines[5.0, 4.0], lines[5, 3, 2]
    assert np.allclose(whole.get_xdata(), [5e10, 1e11]) and axes.get_xscale() == "log"
    assert (whole.get_linestyle(), begun.get_linestyle()) == ("-", ":")
    for line, strategy in ((whole, "scratch"), (begun, "kd")):
        assert (line.get_color(), line.get_marker()) == figures.style_of(strategy)
    assert {"1 a", "2 b"} <= set(labels_of(axes))


def test_dashed_lines_show_what_counting_words_achieves_on_each_sample(drawn):
    axes, = drawn({"stories": [curve("1 a"), curve("2 b"), curve("3 c", unigram=4.05)]})
    dashed = sorted(line.get_ydata()[0] for line in axes.get_lines()
                    if line.get_linestyle() == "--")
    assert dashed == [1.3, 4.0, 4.05]
    assert {"unigram (plateau)", "both neighbours"} <= set(labels_of(axes))


@pytest.mark.parametrize("losses", [
    [4.0] * 12, [1.3] * 12, [4.0, 4.01, 3.99, 1.31, 1.3, 0.4, 5.0],
    [0.3 + i / 50 for i in range(38)], [3.0]])
def test_no_label_covers_another_or_a_tick_or_the_title(drawn, losses):
    many = [curve(f"{i} scratch 2x128", losses=(6.0, loss), last=10 ** (9 + i % 4))
            for i, loss in enumerate(losses)]
    axes, = drawn({"stories": many})
    boxes = labels_of(axes)
    assert len(boxes) == len(losses) + 2
    for (one, box), (other, its) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(its), (one, other)
    renderer = axes.figure.canvas.get_renderer()
    others = [axes.title, *(label for label in axes.get_xticklabels() if label.get_text())]
    for text, (label, box) in itertools.product(others, boxes.items()):
        assert not box.overlaps(text.get_window_extent(renderer)), (label, text.get_text())


def test_a_label_stands_at_the_height_of_its_line_where_there_is_room(drawn):
    axes, = drawn({"stories": [curve("1 a", losses=(5.0, 3.0)), curve("2 b", losses=(5.0, 2.0))]})
    heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert heights["1 a"] == pytest.approx(3.0) and heights["2 b"] == pytest.approx(2.0)


def test_losses_on_different_texts_stand_in_different_panels(drawn):
    panels = drawn({"stories": [curve("1 a")], "b$oo\\k$": [curve("2 b")]})
    assert [axes.get_title() for axes in panels] == ["stories", "b$oo\\k$"]
    assert ["1 a" in labels_of(axes) for axes in panels] == [True, False]


def test_of_very_many_curves_the_lowest_are_named(drawn):
    many = [curve(f"{i}", losses=(5.0, 1.0 + i / 100)) for i in range(curves.MOST_LABELS + 5)]
    axes, = drawn({"stories": many})
    named = set(labels_of(axes)) - {"unigram (plateau)", "both neighbours"}
    assert named == {str(i) for i in range(curves.MOST_LABELS)}
    assert len(axes.get_lines()) == len(many) + 2


@pytest.mark.parametrize("first, last, ticks", [
    (3e9, 4e10, [5e9, 1e10, 2e10]), (9e9, 2e14, [1e10, 1e11, 1e12, 1e13, 1e14]),
    (6e9, 7e9, [6e9, 7e9]), (6e9, 6e9, [6e9]), (1, 3, [1, 2])])
def test_the_axis_names_some_budgets_whatever_its_span(first, last, ticks):
    found = curves.ticks_between(first, last)
    assert found == ticks and all(math.isfinite(x) for x in found)


def test_the_figure_is_a_png(tmp_path):
    curves.draw_curves({"stories": [curve("1 a", losses=(4.0,))]}, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
