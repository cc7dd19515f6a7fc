"""glue.json: the fine-tunings of a model that are finished, so that none is done twice."""
from plumbing import disk
from plumbing.cli import UserError


def read(path):
    """{"cells": [cell with its scores]}, empty where there is no file. Raises UserError where the
    file is damaged."""
    kept = disk.read_json(path) if path.exists() else {"cells": []}
    cells = kept.get("cells")
    is_list = isinstance(cells, list)
    if not is_list or not all(isinstance(cell, dict) and isinstance(cell.get("scores"), dict)
                              for cell in cells):
        raise UserError(f"{path} is damaged: it holds no list of cells; remove it, and they are "
                        "made again")
    return kept


def find(kept, cell):
    """The finished fine-tuning of a cell, or None."""
    return next((done for done in kept["cells"]
                 if all(done.get(key) == value for key, value in cell.items())), None)
