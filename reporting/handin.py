"""students.zip: a comparison without its weights, small enough to hand in. It has compare.json, and
of each student run.json and glue.json. Equal students make an equal file.

    python compare.py --collect students.zip --out runs/again      writes the report from it again
"""
import contextlib
import tempfile
import zipfile
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError

from reporting.cells import SCORES
from reporting.presets import texts

NAME = "students.zip"
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the date of every file in the zip


def hand_in(study, outcomes, teacher):
    """Writes students.zip. outcomes, teacher: as cells.outcome gives them; the teacher's may name
    the "folder" with its glue.json."""
    contents = {"compare.json": disk.json_text(texts(study))}
    records = {f"cells/{cell.folder.name}": (found["record"], cell.folder)
               for cell, found in sorted(outcomes.items(), key=lambda item: item[0].folder)}
    if teacher:
        records[SCORES] = teacher["record"], teacher.get("folder", study.out / SCORES)
    for name, (record, folder) in records.items():
        # Without the folder in which the teacher lay: it names its owner's home.
        record = {key: value for key, value in record.items() if key != "teacher"}
        contents[f"{name}/run.json"] = disk.json_text(record)
        contents[f"{name}/glue.json"] = disk.read_text(folder / "glue.json")

    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in contents.items():
                archive.writestr(zipfile.ZipInfo(name, LONG_AGO), text, zipfile.ZIP_DEFLATED)
    disk.replace(study.out / NAME, write)


@contextlib.contextmanager
def opened(paths):
    """The folders of some comparisons. Each path is a folder, or a students.zip, whose files are
    unpacked for as long as the context lasts. An error inside of it names the zip."""
    with contextlib.ExitStack() as stack:
        folders = [unpacked(path, stack) if Path(path).is_file() else Path(path)
                   for path in paths]
        try:
            yield folders
        except UserError as failure:
            raise UserError(renamed(str(failure), paths, folders)) from None


def renamed(words, paths, folders):
    """Words in which a zip is named, and not the folder in which its files lie meanwhile."""
    for path, folder in zip(paths, folders):
        words = words.replace(str(folder), str(Path(path)))
    return words


def unpacked(path, stack):
    """The files of a zip in a temporary folder, which goes when the stack is closed."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    try:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)  # it leaves out what would lie outside of the folder
    except Exception as failure:  # every compression has classes of its own; it may be encrypted
        raise UserError(f"--collect {path} cannot be unpacked ({cli.one_line(failure)}): give the "
                        f"{NAME} that a comparison wrote, or its folder") from None
    # Whoever zips a folder by hand has its name in the zip, too.
    places = sorted(found.parent for found in folder.rglob("compare.json"))
    if len(places) != 1:
        raise UserError(f"--collect {path} holds {cli.counted(len(places), 'comparison')}, and not "
                        f"one: give the {NAME} that a comparison wrote, or its folder")
    return places[0]
