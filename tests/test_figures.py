"""reporting/figures.py: figures show what was measured, and strategies can be told apart."""
import re

import numpy as np
import pytest
from test_report import make_study

import distill
from reporting import figures, findings


@pytest.fixture
def drawn(monkeypatch):
    """{name of a figure: the figure}, as it was when it was saved."""
    saved = {}
    monkeypatch.setattr(figures, "save", lambda figure, folder, name: saved.update({name: figure}))
    yield saved
    for figure in saved.values():
        figures.pyplot().close(figure)


def draw(args, outcomes, folder):
    figures.draw_scores(findings.rows_of(args, outcomes), args, folder,
                        findings.levels_of(outcomes))


def test_each_strategy_has_a_colour_and_a_marker_of_its_own():
    styles = [figures.style_of(strategy) for strategy in distill.STRATEGIES]
    assert len(set(styles)) == len(distill.STRATEGIES)


def test_the_scores_are_drawn_as_a_line_and_a_dot_for_each_student(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    draw(args, outcomes, tmp_path)
    axes = drawn["scores"].axes[0]  # scores on unlimited data: for each strategy a line, its dots
    line, dots = axes.get_lines()[:2]
    # The strategies stand a little beside each other.
    assert np.allclose(line.get_xydata(), [(1e12, 43), (1e13, 63)], rtol=0.03)
    assert np.allclose(dots.get_xydata()[:, 1], [40, 43, 46, 60, 63, 66])
    assert axes.get_title() == "unlimited data" and axes.get_xscale() == "log"


def test_the_axes_show_every_student(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    draw(args, outcomes, tmp_path)
    low, high = drawn["scores"].axes[0].get_ylim()
    assert low < 40 and high > 66


def test_names_at_the_ends_of_the_lines_do_not_overlap(tmp_path, drawn):
    # At the larger budget both strategies have the same scores, so the lines end in one point.
    args, outcomes = make_study(tmp_path)
    draw(args, outcomes, tmp_path)
    axes = drawn["scores"].axes[0]
    heights = sorted(text.xyann[1] for text in axes.texts if hasattr(text, "xyann"))
    low, high = axes.get_ylim()
    assert len(heights) == 2 and heights[1] - heights[0] >= 0.05 * (high - low)


def test_dashed_lines_show_what_the_students_lie_between(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    draw(args, outcomes, tmp_path)
    score, loss = drawn["scores"].axes[0], drawn["scores"].axes[2]
    for axes, name, value in ((score, "guessing", 50), (loss, "plateau (unigram)", 4)):
        assert name in [text.get_text() for text in axes.texts]
        dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [value]


def test_the_forest_has_a_row_for_each_difference_and_what_is_resolved_is_bold(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    rows = findings.rows_of(args, outcomes)
    pooled = findings.pooled_of(args, rows)
    pooled[0] |= {"depends": False}
    pooled[1] |= {"depends": False, "verdict": "not told apart from scratch with 3 seeds"}
    figures.draw_forest(pooled, args, tmp_path)
    [axes] = drawn["forest"].axes
    labels = [(label.get_text(), label.get_fontweight()) for label in axes.get_yticklabels()]
    assert labels == [("kd", "bold"), ("kd", "normal")]
    [low, high] = [collection.get_segments()[0][:, 0] for collection in axes.collections][0]
    mean, half = pooled[0]["difference"], pooled[0]["difference_half"]
    assert (low, high) == pytest.approx((mean - half, mean + half))
    words = [text.get_text() for text in axes.texts]
    assert {"unlimited data", "20,000 distinct tokens", "5.0 ± 0.1 (n = 3)"} <= set(words)


def test_below_a_pooled_difference_the_forest_shows_that_at_each_budget(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    figures.draw_forest(findings.pooled_of(args, findings.rows_of(args, outcomes)), args, tmp_path)
    figure = drawn["forest"]
    [axes] = figure.axes
    shown = {}  # {height: the middle of the interval drawn there}
    for collection in axes.collections:
        [[(low, y), (high, _)]] = collection.get_segments()
        shown[y] = (low + high) / 2
    names = {y: label.get_text() for minor in (False, True)
             for y, label in zip(axes.get_yticks(minor=minor), axes.get_yticklabels(minor=minor))}
    numbers = {text.get_position()[1]: text.get_text() for text in axes.texts}
    rows = [(names[y], shown[y], numbers[y]) for y in sorted(shown)]
    of_one = [("kd", pytest.approx(5.05), "5.0 ± 0.1 (n = 3)"),
              ("10¹² FLOPs", pytest.approx(10.1), "10.1 ± 0.2 (n = 3)"),
              ("10¹³ FLOPs", pytest.approx(0.0), "0.0 ± 0.0 (n = 3)")]
    assert rows == 2 * of_one
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_mean_is_not_bold_where_the_difference_depends_on_the_budget(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    pooled = findings.pooled_of(args, findings.rows_of(args, outcomes))
    pooled[0]["depends"], pooled[1]["depends"] = True, False
    figures.draw_forest(pooled, args, tmp_path)
    weights = [label.get_fontweight() for label in drawn["forest"].axes[0].get_yticklabels()]
    assert weights == ["normal", "bold"]


def test_a_row_of_one_among_several_budgets_names_it_and_stands_once(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    for cell in [cell for cell in outcomes if cell.unique_tokens and cell.flops == 10 ** 13]:
        del outcomes[cell]
    figures.draw_forest(findings.pooled_of(args, findings.rows_of(args, outcomes)), args, tmp_path)
    [axes] = drawn["forest"].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["kd", "kd, 10¹² FLOPs"] and len(axes.collections) == 4


def test_the_forest_of_one_budget_has_no_lines_below_its_rows(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    args.budgets = args.budgets[:1]
    rows = findings.rows_of(args, outcomes)
    figures.draw_forest(findings.pooled_of(args, rows), args, tmp_path)
    [axes] = drawn["forest"].axes
    assert len(axes.collections) == 2 and len(axes.get_yticks(minor=True)) == 0


def test_the_bars_of_the_bill_add_up_to_the_budget(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    figures.draw_bill(findings.rows_of(args, outcomes), args, tmp_path)
    bars = drawn["bill"].axes[0].patches
    for y, shares in enumerate(([100 / 3, 200 / 3, 0, 0], [20, 40, 40, 0])):  # scratch, kd
        widths = [bar.get_width() for bar in bars if round(bar.get_y() + 0.4) == y]
        assert np.allclose(widths, shares)


def test_a_figure_is_saved_as_png_and_svg_without_a_date(tmp_path):
    args, outcomes = make_study(tmp_path)
    figures.draw_bill(findings.rows_of(args, outcomes), args, tmp_path)
    assert (tmp_path / "bill.png").read_bytes().startswith(b"\x89PNG")
    assert not re.search("<dc:date>", (tmp_path / "bill.svg").read_text())


def test_a_share_too_narrow_for_its_number_has_it_beside_the_bar(tmp_path, drawn):
    args, outcomes = make_study(tmp_path)
    rows = [row for row in findings.rows_of(args, outcomes) if row["strategy"] == "kd"]
    rows[0]["bill"] = {"student_forward": 17, "student_backward": 34, "teacher_forward": 46,
                       "loss": 3}
    figures.draw_bill(rows[:1], args, tmp_path)
    figure = drawn["bill"]
    figure.canvas.draw()
    axes = figure.axes[0]
    texts = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert {"17%", "34%", "46%", "3% loss"} <= texts.keys()
    bars = [bar.get_window_extent() for bar in axes.patches]
    assert not any(texts["3% loss"].overlaps(bar) for bar in bars)


@pytest.fixture
def curve_of(tmp_path, monkeypatch):
    """curve_of(losses, **fields of run.json) -> the figure of a run with these losses."""
    kept = []
    monkeypatch.setattr(figures.pyplot(), "close", kept.append)

    def curve(losses, **fields):
        log = [{"flops": 10 ** 6 * step, "terms": {"mlm": loss}, "val_terms": {"mlm": loss}}
               for step, loss in enumerate(losses)]
        record = {"val_terms": {"mlm": losses[-1]}, "unigram_loss": 4.0, "neighbour_loss": 1.3,
                  "settings": {"strategy": "scratch", "model": "2x64", "flops_budget": 10 ** 7}}
        figures.draw_curve(tmp_path, log, record | fields)
        kept[-1].canvas.draw()
        return kept[-1]
    yield curve
    monkeypatch.undo()
    for figure in kept:
        figures.pyplot().close(figure)


PLATEAU = [5.5, 4.2, *[4.0] * 8]


@pytest.mark.parametrize("neighbour_loss", [1.3, 3.95, 4.05])  # far below, just below, above
def test_the_names_of_the_counting_losses_cover_neither_a_curve_nor_each_other(
        curve_of, neighbour_loss):
    figure = curve_of(PLATEAU, neighbour_loss=neighbour_loss)
    axes = figure.axes[0]
    # The losses are also those of the dashed lines, which show both.
    dashed = [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert sorted(dashed) == sorted([4.0, neighbour_loss])
    assert axes.get_ylim()[0] < min(4.0, neighbour_loss)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text().split()[0] for text in axes.texts] == (
        ["both", "unigram:"] if neighbour_loss < 4 else ["unigram:", "both"])  # the lower one first
    assert not boxes[0].overlaps(boxes[1])
    for box in boxes:
        assert box.x0 > axes.bbox.x1 and box.x1 <= figure.bbox.x1  # beside the axes, not cut off


def test_a_curve_that_grows_leaves_room_for_what_is_to_come(curve_of):
    axes = curve_of(PLATEAU[:3]).axes[0]
    assert 10 ** 7 <= axes.get_xlim()[1] <= 1.1 * 10 ** 7


def test_a_runs_curve_is_a_png(tmp_path, curve_of):
    curve_of(PLATEAU)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
