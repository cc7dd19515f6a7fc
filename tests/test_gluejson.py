"""gluejson.py: the fine-tunings that are finished, so that none is done twice."""
import json

from files import disk
from plumbing import gluejson
from plumbing.cli import UserError

import pytest

CELL = {"task": "rte", "lr": 1e-4, "batch_size": 16, "seed": 0}
FINISHED = {**CELL, "scores": {"dev": {"accuracy": 0.75}}, "seconds": 3.0}


def test_without_a_file_nothing_is_finished(tmp_path):
    assert gluejson.read(tmp_path / "glue.json") == {"cells": []}
    assert gluejson.find({"cells": []}, CELL) is None


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "glue.json"
    disk.write_json(path, {"cells": [FINISHED]})
    assert gluejson.find(gluejson.read(path), CELL) == FINISHED


def test_the_same_examples_at_another_place_are_the_same_fine_tuning():
    kept = {"cells": [{**FINISHED, "data": "glue_data", "examples_sha256": "a"}]}
    moved = {**CELL, "data": "/home/ann/glue_data/", "examples_sha256": "a"}
    edited = {**CELL, "data": "glue_data", "examples_sha256": "b"}
    assert gluejson.find(kept, moved) == kept["cells"][0]
    assert gluejson.find(kept, edited) is None


@pytest.mark.parametrize("other", [{"lr": 2e-4}, {"seed": 1}, {"task": "cola"}, {"pool": "mean"}])
def test_a_cell_that_differs_in_any_entry_is_not_finished(other):
    assert gluejson.find({"cells": [FINISHED]}, {**CELL, **other}) is None


@pytest.mark.parametrize("contents", [
    {}, {"cells": None}, {"cells": {}}, {"cells": [1]}, {"cells": [CELL]},
    {"cells": [{**CELL, "scores": 0.75}]}])
def test_a_file_without_a_list_of_cells_is_damaged(tmp_path, contents):
    path = tmp_path / "glue.json"
    path.write_text(json.dumps(contents))
    with pytest.raises(UserError, match="glue.json is damaged: it holds no list of cells"):
        gluejson.read(path)
