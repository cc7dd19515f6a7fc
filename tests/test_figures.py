"""reporting/figures.py: figures show what was measured, and strategies can be told apart."""
import numpy as np
import pytest
from studies import make_study, without

import compare
import distill
from reporting import figures


@pytest.fixture
def drawn(monkeypatch):
    """{name of a figure: the figure}, as it was when it was saved."""
    saved = {}
    monkeypatch.setattr(figures, "save", lambda figure, folder, name, *_: saved.update(
        {name: figure}))
    yield saved
    for figure in saved.values():
        figures.pyplot().close(figure)


def test_scores_are_a_line_and_a_dot_for_each_student_between_dashed_levels(tmp_path, drawn):
    study, outcomes = make_study(tmp_path)
    levels = {"score": {"guessing": 50}, "val_loss": {"plateau (unigram)": 4}}
    figures.draw_scores(study, compare.findings(study, outcomes), levels)
    score, _, loss, _ = drawn["scores"].axes  # unlimited data in the first column
    styles = {figures.style_of(strategy) for strategy in distill.STRATEGIES}
    assert len(styles) == len(distill.STRATEGIES)  # each has a colour and a marker of its own
    line, dots = score.get_lines()[1:3]  # of scratch, after the level
    # The strategies stand a little beside each other.
    assert np.allclose(line.get_xydata(), [(1e12, 43), (1e13, 63)], rtol=0.03)
    assert sorted(dots.get_ydata()) == pytest.approx([40, 43, 46, 60, 63, 66])
    assert score.get_title() == "unlimited data" and score.get_xscale() == "log"
    low, high = score.get_ylim()
    assert low < 40 and high > 66
    # At the larger budget both strategies have the same scores, so the lines end in one point.
    heights = sorted(text.xyann[1] for text in score.texts if hasattr(text, "xyann"))
    assert len(heights) == 2 and heights[1] - heights[0] >= 0.05 * (high - low)
    for axes, name, value in ((score, "guessing", 50), (loss, "plateau (unigram)", 4)):
        assert name in [text.get_text() for text in axes.texts]
        dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert [line.get_ydata()[0] for line in dashed] == [value]


def forest_rows(figure):
    """[(name, whether it is bold, middle of the interval, numbers)] from the top down, but for the
    names of data settings."""
    [axes], middles, texts = figure.axes, {}, {}
    for collection in axes.collections:
        [[(low, y), (high, _)]] = collection.get_segments()
        middles[y] = (low + high) / 2
    for text in sorted(axes.texts, key=lambda text: text.get_position()[0]):
        texts.setdefault(text.get_position()[1], []).append(text)
    return [(texts[y][0].get_text(), texts[y][0].get_fontweight() == "bold",
             pytest.approx(middles[y]), texts[y][1].get_text()) for y in sorted(middles)]


def test_the_forest_has_a_row_for_each_difference_and_below_it_one_for_each_budget(tmp_path, drawn):
    gains = {"kd": ((10.0, 10.1, 10.2), (9.0, 9.1, 9.2)), "minilm": ((10.0, 10.1, 10.2), 0)}
    study, outcomes = make_study(tmp_path, gains)
    outcomes = without(outcomes, strategy="kd", unique_tokens=20000, flops=10 ** 13)
    figures.draw_forest(compare.findings(study, outcomes), tmp_path)
    smaller = ("10¹² FLOPs", False, 10.1, "10.1 ± 0.2 (n = 3)")
    minilm = [("minilm", False, 5.05, "5.0 ± 0.1 (n = 3)"), smaller,  # it depends on the budget
              ("10¹³ FLOPs", False, 0.0, "0.0 ± 0.0 (n = 3)")]
    assert forest_rows(drawn["forest"]) == [
        ("kd", True, 9.6, "9.6 ± 0.2 (n = 3)"), smaller,
        ("10¹³ FLOPs", False, 9.1, "9.1 ± 0.2 (n = 3)"), *minilm,
        ("kd", True, 10.1, "10.1 ± 0.2 (n = 3)"), smaller, *minilm]
    drawn["forest"].canvas.draw()
    texts = drawn["forest"].axes[0].texts
    assert {"unlimited data", "20,000 distinct tokens"} < {text.get_text() for text in texts}
    boxes = [text.get_window_extent() for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_bars_of_the_bill_add_up_to_the_budget(tmp_path, drawn):
    study, outcomes = make_study(tmp_path)
    for cell, outcome in outcomes.items():
        if cell.strategy == "kd":
            outcome["record"]["bill"] = {"student_forward": 17, "student_backward": 34,
                                         "teacher_forward": 46, "loss": 3}
    figures.draw_bill(compare.findings(study, outcomes), tmp_path)
    axes = drawn["bill"].axes[0]
    for y, shares in enumerate(([100 / 3, 200 / 3, 0, 0], [17, 34, 46, 3])):  # scratch, kd
        widths = [bar.get_width() for bar in axes.patches if round(bar.get_y() + 0.4) == y]
        assert np.allclose(widths, shares)
    said = [text.get_text() for text in axes.texts if text.get_text()]
    assert said == ["33%", "17%", "67%", "34%", "46%"]  # a share too narrow for its number has none


def test_a_runs_curve_shows_both_counting_losses_and_leaves_room_for_what_is_to_come(drawn):
    log = [{"flops": 10 ** 6 * step, "terms": {"mlm": loss}, "val_terms": {"mlm": loss}}
           for step, loss in enumerate([5.5, 4.2, 4.0])]
    record = {"val_terms": {"mlm": 4.0}, "unigram_loss": 4.0, "neighbour_loss": 1.3,
              "settings": {"strategy": "scratch", "model": "2x64", "flops_budget": 10 ** 7}}
    figures.draw_curve(".", log, record)
    axes = drawn["curve"].axes[0]
    heights = [list(line.get_ydata()) for line in axes.get_lines()]
    assert heights[:2] == [[5.5, 4.2, 4.0]] * 2 and [y for y, *_ in heights[2:]] == [4.0, 1.3]
    assert 10 ** 7 <= axes.get_xlim()[1] <= 1.1 * 10 ** 7


def test_a_figure_is_saved_as_png_and_svg_without_a_date(tmp_path):
    figures.draw_bill(compare.findings(*make_study(tmp_path)), tmp_path)
    assert (tmp_path / "bill.png").read_bytes().startswith(b"\x89PNG")
    assert "<dc:date>" not in (tmp_path / "bill.svg").read_text()
