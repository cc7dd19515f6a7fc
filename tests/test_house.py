"""The house: seven concepts at the root, folders for what they stand on, and imports that run one
way."""
import ast
import graphlib
import re
import subprocess
import sys

import pytest
from conftest import ROOT

CONCEPTS = ("budget", "model", "distill", "data", "train", "glue", "compare")
FOLDERS = ("program", "files", "running", "measure", "world", "reporting", "tools")
FILES = [ROOT / f"{name}.py" for name in CONCEPTS]
FILES += [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]


def name_of(path):
    """program/cli.py -> program.cli"""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {name_of(path): path for path in FILES}


def imports_of(path):
    """The modules of the project that a file imports, at its top or inside its functions."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return modules & MODULES.keys()


def test_imports_run_one_way():
    graph = {name: imports_of(path) for name, path in MODULES.items()}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as circle:
        pytest.fail(f"these files import each other: {' <- '.join(circle.args[1])}")


@pytest.mark.parametrize("folder, knows", [
    ("measure", {"measure"}), ("program", {"program"}), ("files", {"program", "measure"}),
    ("running", {"program", "files"}), ("world", {"program", "files", "measure"})])
def test_a_room_knows_nothing_above_it(folder, knows):
    for name, path in MODULES.items():
        if name.startswith(folder + "."):
            assert {module.split(".")[0] for module in imports_of(path)} <= {folder, *knows}, name


def test_nothing_of_the_program_imports_the_tools_but_the_tools():
    for name, path in MODULES.items():
        if not name.startswith("tools."):
            assert not any(module.startswith("tools") for module in imports_of(path)), name


def functions_of(path):
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.FunctionDef)]


def test_an_import_that_waits_inside_a_function_says_why():
    silent = []
    for path in FILES:
        lines = path.read_text().split("\n")
        for function in functions_of(path):
            says = "import" in (ast.get_docstring(function) or "")
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)) and not says:
                    near = lines[max(0, node.lineno - 4):node.end_lineno]
                    silent += [] if any("#" in line for line in near) else [
                        f"{path.relative_to(ROOT)}:{node.lineno}"]
    assert not silent


def test_functions_fit_a_screen():
    """At most 50 lines without the docstring and the argument list."""
    long = []
    for path in [*FILES, *(ROOT / "exercises").rglob("*.py")]:
        for function in functions_of(path):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            lines = function.end_lineno - body[0].lineno + 1 if body else 0
            long += [f"{path.relative_to(ROOT)}: {function.name}, {lines} lines"] * (lines > 50)
    assert not long


def test_no_function_has_more_than_six_parameters():
    """self is not counted."""
    many = []
    for path in [*FILES, *(ROOT / "exercises").rglob("*.py")]:
        for function in functions_of(path):
            words = function.args
            names = [word.arg for word in [*words.posonlyargs, *words.args, *words.kwonlyargs]]
            if len(set(names) - {"self"}) > 6:
                many.append(f"{path.relative_to(ROOT)}: {function.name}{tuple(names)}")
    assert not many


def test_ruff_finds_nothing():
    """The rules stand in pyproject.toml: 100 columns, unused names, import order, complexity."""
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_root_holds_the_seven_concepts_and_no_other_program():
    assert {path.stem for path in ROOT.glob("*.py")} == set(CONCEPTS)
    assert sum(len(path.read_text().splitlines()) for path in ROOT.glob("*.py")) <= 2200


def test_the_readme_is_short_and_its_map_counts_lines_right():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.encode()) <= 8 * 1024
    rows = dict(re.findall(r"^\| `(\w+)\.py` \|.*\| (\d+) \|$", readme, re.MULTILINE))
    assert set(rows) == set(CONCEPTS)
    for name, lines in rows.items():
        real = (ROOT / f"{name}.py").read_text().count("\n")  # as `wc -l` counts
        assert int(lines) == real, f"{name}.py has {real} lines"


def test_the_seven_files_stand_in_the_readme_in_the_order_in_which_they_are_read():
    readme = (ROOT / "README.md").read_text()
    names = re.findall(r"^\| `(\w+)\.py` \|", readme, re.MULTILINE)
    assert tuple(names) == CONCEPTS
