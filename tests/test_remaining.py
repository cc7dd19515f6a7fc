"""remaining.py: how much of a comparison is left, by what its running cells have left behind."""
import json
from types import SimpleNamespace

from program import progress

import pytest

from reporting import remaining
from reporting.cells import Cell
from reporting.price import START, Work


def test_what_a_running_cell_has_spent_is_in_the_last_whole_line_of_its_log(tmp_path):
    cell = Cell("scratch", 10 ** 12, None, 0, None, tmp_path, ())
    assert remaining.spent(cell) == 0
    (tmp_path / "log.jsonl").write_text('{"flops": 5}\n{"flops": 70}\n')
    assert remaining.spent(cell) == 70
    (tmp_path / "log.jsonl").write_text('{"flops": 5}\n{"fl')
    assert remaining.spent(cell) == 0
    (tmp_path / "log.jsonl").write_text('{"flops": 99999999999999}\n')
    assert remaining.spent(cell) == 10 ** 12  # never more than its budget


def test_how_far_a_fine_tuning_is_stands_in_what_glue_prints(tmp_path, capsys):
    path = tmp_path / "log.txt"
    assert remaining.fine_tuned(path) is None
    for unit, done in (("FLOP", 900), ("step", 100), ("step", 250)):
        with progress.bar(1000, unit, "sentiment lr 0.00048 batch 16 seed 0 (1/2)") as bar:
            bar.update(done)
        with open(path, "a") as log:
            log.write("a line of train.py\n" + capsys.readouterr().err)
        expected = {"FLOP": None, "step": done / 1000}[unit]
        assert remaining.fine_tuned(path) == expected


@pytest.fixture
def cells(tmp_path):
    """Two students of 1,000 FLOPs."""
    return [Cell("scratch", 1000, None, seed, None, tmp_path / str(seed), ((), ()))
            for seed in range(2)]


@pytest.fixture
def left(cells, tmp_path):
    """Their Remaining, one after the other, at 10 FLOP/s. Each has 200 FLOPs of validation and 60
    of fine-tuning, at 6 FLOP/s: 130 seconds, and two starts."""
    prices = SimpleNamespace(work=lambda cell: Work(1000, 200, 60, 2))
    return remaining.Remaining(prices, cells, 10, 1, lambda cell: tmp_path / f"{cell.seed}.txt")


WHOLE = 130 + 2 * START


def pretrain(cell, flops):
    cell.folder.mkdir(exist_ok=True)
    (cell.folder / "log.jsonl").write_text(json.dumps({"flops": flops}) + "\n")


def test_what_is_left_becomes_less_with_each_program_and_each_step(left, cells, tmp_path):
    first, second = cells

    def done():
        return 2 * WHOLE - left.seconds_of([first], [second])
    assert left.total == 2 * WHOLE and done() == START / 2  # train.py is on its way
    pretrain(first, 0)
    assert done() == START                                  # it has started
    pretrain(first, 500)
    assert done() == START + 60                             # half of 1000 + 200 FLOPs
    pretrain(first, 990)                                    # a step more would be too much
    (first.folder / "model.safetensors").touch()
    assert done() == START + 120 + START / 2                # glue.py is on its way
    (tmp_path / "0.txt").write_text("30%|###       | 3/10 [00:01<00:02, 3.00step/s]\n")
    assert done() == pytest.approx(START + 120 + START + 3)
    assert left.seconds_of([], [second]) == WHOLE and left.seconds_of([], []) == 0


def test_a_teacher_that_is_being_written_has_nothing_left(left, cells, tmp_path):
    left.prices.work = lambda cell: Work(1000, 200, 0, 1)
    pretrain(cells[0], 990)
    (cells[0].folder / "model.safetensors").touch()
    assert left.seconds_of(cells[:1], []) == 0


def test_what_was_spent_before_is_no_part_of_the_work(left, cells):
    pretrain(cells[1], 1000)
    again = remaining.Remaining(left.prices, cells, 10, 1, left.log_of)
    assert again.total == left.total - 120


def test_a_damaged_log_does_not_make_the_rest_longer(left, cells):
    pretrain(cells[0], 500)
    again = remaining.Remaining(left.prices, cells, 10, 1, left.log_of)
    (cells[0].folder / "log.jsonl").write_text("{")
    assert again.seconds_of(cells[:1], cells[1:]) <= again.total


def test_cells_beside_each_other_share_the_time(left, cells):
    both = remaining.Remaining(left.prices, cells, 10, 2, left.log_of)
    assert both.total == WHOLE
