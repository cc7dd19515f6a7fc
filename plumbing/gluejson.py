"""glue.json: the fine-tunings of a model that are finished, so that none is done twice."""
from pathlib import Path

from files import disk
from plumbing.cli import UserError


def folder_of(model):
    """Where a model's glue.json goes: into its own folder, or for a hub id into one in runs/."""
    if Path(model).is_dir():
        return Path(model)
    return Path("runs") / f"glue-{Path(model).name}"


def read(path):
    """{"cells": [cell with its scores]}, with no cells where there is no file. Raises UserError
    where the file is damaged."""
    kept = disk.read_json(path) if path.exists() else {"cells": []}
    cells = kept.get("cells")
    if not isinstance(cells, list) or not all(is_cell(cell) for cell in cells):
        raise UserError(f"{path} is damaged: it holds no list of cells; remove it, and they are "
                        "made again")
    return kept


def is_cell(value):
    """Whether a value from a file is a cell with its scores."""
    return isinstance(value, dict) and isinstance(value.get("scores"), dict)


def find(kept, cell):
    """The finished fine-tuning of a cell, or None. It may have entries that the cell does not name,
    such as its scores. Where the data lie does not count: what they are says `examples_sha256`."""
    wanted = {key: value for key, value in cell.items() if key != "data"}
    for finished in kept["cells"]:
        if all(finished.get(key) == value for key, value in wanted.items()):
            return finished
    return None
