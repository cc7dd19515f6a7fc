"""handin.py: a comparison without weights in one small file, of which the report is made again."""
import shutil
import zipfile
from pathlib import Path

from files import disk
from program.cli import UserError

import pytest
from studies import hand_in

import compare
from reporting import handin


def report_of(out, *comparisons):
    """(report.md, results.csv, students.zip) that --collect makes of some comparisons."""
    compare.collect_into(compare.read_settings(["--collect", *map(str, comparisons),
                                                "--out", str(out)]))
    return [(out / name).read_bytes() for name in ("report.md", "results.csv", "students.zip")]


@pytest.fixture
def ann(tmp_path, no_figures):
    """The folder of a comparison of two students, with weights that nobody needs to hand in."""
    folder = hand_in(tmp_path, "ann", {("scratch", 10): 0.50, ("kd", 10): 0.52})
    for run in Path(folder).glob("cells/*/run.json"):
        run.with_name("model.safetensors").write_bytes(bytes(10 ** 6))
        disk.write_json(run, {**disk.read_json(run), "teacher": "/home/ann/teacher"})
    return folder


def test_the_zip_gives_the_same_report_without_weights_and_the_teachers_place(ann, tmp_path):
    first, path = report_of(tmp_path / "all", ann), tmp_path / "all" / "students.zip"
    archive = zipfile.ZipFile(path)
    names = {Path(name).name for name in archive.namelist()}
    assert names == {"compare.json", "run.json", "glue.json"} and path.stat().st_size < 10 ** 4
    assert not any(b"/home/ann" in archive.read(name) for name in archive.namelist())
    by_hand = shutil.make_archive(str(tmp_path / "by-hand"), "zip", tmp_path, "ann")
    for name, source in (("a", path), ("b", by_hand)):
        assert report_of(tmp_path / name, source) == first


def test_a_file_that_is_not_one_comparison_ends_in_one_line(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    zipfile.ZipFile(tmp_path / "other.zip", "w").close()
    for name in ("ann", "ben"):
        hand_in(tmp_path, name, {("scratch", 10): 0.5})
    shutil.make_archive(str(tmp_path / "class"), "zip", tmp_path)
    for name, message in (("text.zip", "cannot be unpacked"), ("other.zip", "holds 0 comparisons"),
                          ("class.zip", "holds 2 comparisons, and not one")):
        with pytest.raises(UserError, match=f"{name} {message}"), handin.opened([tmp_path / name]):
            pass


def test_a_zip_with_one_damaged_bit_ends_in_one_line_or_gives_what_it_held(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    path, refused = tmp_path / "all" / "students.zip", 0
    whole = path.read_bytes()
    for place in range(40, len(whole), len(whole) // 30):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        try:
            with handin.opened([path]):
                pass
        except UserError as refusal:
            refused += str(path) in str(refusal)
    assert refused > 15


def test_an_error_names_the_zip_and_the_unpacked_files_go(ann, tmp_path):
    report_of(tmp_path / "all", ann)
    path = tmp_path / "all" / "students.zip"
    with pytest.raises(UserError) as refusal:  # the same students twice
        report_of(tmp_path / "twice", ann, path)
    assert f"{path}/cells/" in str(refusal.value) and f"{ann}/cells/" in str(refusal.value)
    with handin.opened([path, ann]) as (unpacked, folder):
        assert (unpacked / "compare.json").exists() and str(folder) == ann
    assert not unpacked.exists() and Path(ann).exists()
