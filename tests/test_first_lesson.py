"""notebooks/first_lesson.ipynb: it runs from start to end, and what it shows was a real run."""
import ast
import json
import re
import subprocess

import pytest
from conftest import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOK = json.loads((FOLDER / "first_lesson.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
PROSE = "\n".join("".join(cell["source"]) for cell in NOTEBOOK["cells"]
                  if cell["cell_type"] == "markdown")
# What the slow test puts in the place of the notebook's budgets: half a minute instead of four.
SHORT = """
STUDENT, FLOPS = "2x64h2", "1e11"
TEACHER, TEACHER_FLOPS = "2x96h3", "5e10"
RUNS = Path({!r})
"""


def printed(cells):
    """All text that cells have printed."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    return "".join("".join(output["text"]) for output in outputs
                   if output["output_type"] == "stream")


def pictures(cells):
    """How many PNGs cells have shown."""
    return sum("image/png" in output.get("data", {}) for cell in cells
               for output in cell["outputs"])


# --------------------------------------------------------------------------------------------------
# What is kept in the file


def test_the_outputs_are_those_of_one_run_from_top_to_bottom():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = {output["output_type"] for cell in CODE for output in cell["outputs"]}
    assert "error" not in kinds
    assert pictures(CODE) == 4  # a curve of each of three runs, and all of them
    assert not re.search(r"/root|/home|/tmp|/Users", printed(CODE))  # the place of somebody's copy


def test_the_students_spent_the_budget_that_the_notebook_names():
    source = "".join("".join(cell["source"]) for cell in CODE)
    budgets = [float(re.search(rf'"({number})"', source)[1]) for number in ("3e12", "1e13", "3e12")]
    spent = re.findall(r"finished .* tokens, ([\d,]+) FLOPs of ([\d,]+)", printed(CODE))
    for budget, (flops, of) in zip(budgets, spent, strict=True):
        assert 0.999 * budget < float(flops.replace(",", "")) <= budget
        assert float(of.replace(",", "")) == budget


def test_numbers_of_the_text_are_those_of_the_outputs_and_its_links_lead_somewhere():
    numbers = re.findall(r"\d{1,3}(?:,\d{3})+|\d\.\d{3}", PROSE)
    assert numbers and all(number in printed(CODE) for number in numbers)
    assert all((FOLDER / link).exists() for link in re.findall(r"\]\(([^)]+)\)", PROSE))


# --------------------------------------------------------------------------------------------------
# What runs


def execute(cells, folder):
    """Runs cells in a new kernel, from a folder. Returns them with their outputs."""
    # Only the slow tests run a notebook, and these take a second to import.
    import nbclient
    import nbformat
    notebook = nbformat.reads(json.dumps({**NOTEBOOK, "cells": cells}), as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3",
                            resources={"metadata": {"path": str(folder)}}).execute()
    return notebook.cells


def names_of(source):
    """The variables that a cell sets."""
    return {node.id for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    """(the code cells after the whole notebook ran on small budgets, the folder of its runs)."""
    runs = tmp_path_factory.mktemp("lesson") / "runs"
    [place] = [i for i, cell in enumerate(NOTEBOOK["cells"])
               if "parameters" in cell["metadata"].get("tags", ())]
    short = SHORT.format(str(runs))
    cells = json.loads(json.dumps(NOTEBOOK["cells"]))
    assert names_of("".join(cells[place]["source"])) == names_of(short)
    cells[place]["source"] = short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(runs.parent / "cache"))
        done = execute(cells, FOLDER)
    return [cell for cell in done if cell["cell_type"] == "code"], runs


@pytest.mark.slow
def test_both_students_spend_the_budget_and_learn_as_the_notebook_says(lesson):
    cells, runs = lesson
    bills = dict(re.findall(r"(scratch|kd) +[\d,]+ FLOPs a step, ([\d,]+) steps", printed(cells)))
    records = {name: json.loads((runs / name / "run.json").read_text()) for name in bills}
    for name, record in records.items():
        assert 0.98 * 1e11 < record["flops_spent"] <= 1e11 and record["strategy"] == name
        assert record["steps"] == int(bills[name].replace(",", ""))
    assert records["kd"]["steps"] < records["scratch"]["steps"]
    assert records["scratch"]["val_loss"] < records["scratch"]["unigram_loss"]
    assert pictures(cells) == 4 and (runs / "curves.png").exists()
    # Two [MASK]s and one, before beside after; one more, where kd stands beside scratch.
    assert len(re.findall(r"^ +before +scratch$", printed(cells), re.M)) == 3
    assert len(re.findall(r"^ +scratch +kd$", printed(cells), re.M)) == 1


# --------------------------------------------------------------------------------------------------
# Where the project is not at hand


@pytest.mark.slow
def test_without_the_project_the_first_cell_asks_for_its_address(tmp_path):
    import nbclient  # only here: it takes a second
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="fill in REPOSITORY"):
        execute(CODE[:1], tmp_path)


@pytest.mark.slow
def test_with_an_address_the_first_cell_clones_the_project(tmp_path):
    project, folder = tmp_path / "project", tmp_path / "colab"
    project.mkdir()
    folder.mkdir()
    (project / "budget.py").write_text("word = 'cloned'\n")
    (project / "requirements.txt").write_text("")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "."]):
        subprocess.run([*git, *words], cwd=project, check=True)
    first = "".join(CODE[0]["source"])
    filled = first.replace('REPOSITORY = ""', f'REPOSITORY = "{project.as_uri()}"')
    assert filled != first
    cells = [{**CODE[0], "source": filled},
             {**CODE[0], "source": "import budget\nprint(budget.word, Path.cwd())", "id": "after"}]
    assert printed(execute(cells, folder)).endswith(f"cloned {folder / 'isoflop'}\n")
