"""handin.py: a comparison without its weights, in one small file, from which the report is written
again."""
import shutil
import zipfile
from pathlib import Path

from files import disk
from program.cli import UserError

import pytest

import compare
from reporting import handin
from tests.test_collect import hand_in, no_figures  # noqa: F401 (fixtures)

STUDENTS = {("scratch", 10): 0.50, ("kd", 10): 0.52, ("scratch", 11): 0.70, ("kd", 11): 0.76}


def report_of(out, *comparisons):
    """(report.md, results.csv, students.zip) that --collect makes of some comparisons."""
    words = ["--collect", *map(str, comparisons), "--out", str(out)]
    compare.collect_into(compare.read_settings(words))
    return [(out / name).read_bytes() for name in ("report.md", "results.csv", "students.zip")]


@pytest.fixture
def ann(hand_in, no_figures):  # noqa: F811
    """The folder of a comparison of four students, with weights that nobody needs to hand in."""
    folder = hand_in("ann", STUDENTS)
    for cell in Path(folder).glob("cells/*"):
        (cell / "model.safetensors").write_bytes(bytes(10 ** 6))
        run = disk.read_json(cell / "run.json")
        disk.write_json(cell / "run.json", {**run, "teacher": "/home/ann/teacher"})
    return folder


def test_the_zip_and_the_folder_however_it_was_zipped_give_the_same_report(ann, tmp_path):
    first = report_of(tmp_path / "from-folder", ann)
    by_hand = shutil.make_archive(str(tmp_path / "by-hand"), "zip", tmp_path, "ann")
    for name, path in (("a", tmp_path / "from-folder" / "students.zip"), ("b", by_hand)):
        assert report_of(tmp_path / name, path) == first


def test_the_zip_holds_no_weights_and_does_not_say_where_the_teacher_lay(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    path = tmp_path / "all" / "students.zip"
    archive = zipfile.ZipFile(path)
    names = {Path(name).name for name in archive.namelist()}
    assert names == {"compare.json", "run.json", "glue.json"} and path.stat().st_size < 10 ** 4
    assert not any(b"/home/ann" in archive.read(name) for name in archive.namelist())


def test_a_file_that_is_not_one_comparison_ends_in_one_line(hand_in, tmp_path):  # noqa: F811
    (tmp_path / "text.zip").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "hello")
    for name, seed in (("ann", 10), ("ben", 20)):
        hand_in(name, {("scratch", seed): 0.5})
    shutil.make_archive(str(tmp_path / "class"), "zip", tmp_path)
    for name, message in (("text.zip", "cannot be unpacked"), ("other.zip", "holds 0 comparisons"),
                          ("class.zip", "holds 2 comparisons, and not one")):
        with pytest.raises(UserError, match=f"{name} {message}"), handin.opened([tmp_path / name]):
            pass


def test_a_zip_with_one_damaged_bit_ends_in_one_line_or_gives_what_it_held(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    whole = (tmp_path / "all" / "students.zip").read_bytes()
    damaged = tmp_path / "damaged.zip"
    refused = 0
    for place in range(40, len(whole), len(whole) // 30):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        try:
            with handin.opened([damaged]):
                pass
        except UserError as refusal:
            refused += 1
            assert str(damaged) in str(refusal)
    assert refused > 15


def test_an_error_names_the_zip_and_not_where_its_files_lie_meanwhile(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    path = tmp_path / "all" / "students.zip"
    with pytest.raises(UserError) as refusal:  # the same students twice
        report_of(tmp_path / "twice", ann, path)
    assert f"{path}/cells/" in str(refusal.value) and f"{ann}/cells/" in str(refusal.value)


def test_the_unpacked_files_go_when_the_report_is_written(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    with handin.opened([tmp_path / "all" / "students.zip", ann]) as (unpacked, folder):
        assert (unpacked / "compare.json").exists() and str(folder) == ann
    assert not unpacked.exists() and Path(ann).exists()
