"""plumbing/weights.py: one file, several, or a pickle: the same weights, and no code runs."""
import json
import pickle
import tarfile
import zipfile
from collections import OrderedDict

from files import disk
from plumbing import weights, wordpiece
from plumbing.cli import UserError

import huggingface_hub
import pytest
import torch
import transformers
from peers import batch, peer, same
from safetensors.torch import load_file, save_file

from model import Bert


@pytest.fixture
def folder(tmp_path):
    """A folder with a BertForMaskedLM in one model.safetensors, saved by transformers."""
    peer().save_pretrained(tmp_path)
    return tmp_path


def shard(folder, suffix="safetensors"):
    """Cuts the weights in a folder into three files and an index. Returns the shards' paths."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names, weight_map = sorted(tensors), {}
    for i in range(3):
        shard = folder / f"{stem}-0000{i + 1}-of-00003.{suffix}"
        part = {name: tensors[name] for name in names[i::3]}
        if suffix == "safetensors":
            save_file(part, shard, metadata={"format": "pt"})
        else:
            torch.save(part, shard)
        weight_map |= dict.fromkeys(part, shard.name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return sorted(folder.glob(f"{stem}-*"))


def to_pickle(folder, wrap=lambda tensors: tensors, **options):
    """Replaces model.safetensors by a pytorch_model.bin of the same weights."""
    path = folder / "model.safetensors"
    torch.save(wrap(load_file(path)), folder / "pytorch_model.bin", **options)
    path.unlink()


def refusal_of(folder):
    """The error line with which a folder's weights are refused."""
    with pytest.raises(UserError) as refusal:
        weights.read(folder)
    return str(refusal.value)


@torch.no_grad()
def answers_like_transformers(folder):
    """Asserts that hidden states and logits are those of transformers' model of this folder."""
    theirs = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    ours = Bert.from_pretrained(folder)
    ids, mask, types = batch(theirs.config)
    real = mask.bool()
    expected = theirs(ids, mask, types, output_hidden_states=True)
    got = ours(ids, mask, types)
    same(got.logits[real], expected.logits[real])
    for own, their in zip(got.hidden_states, expected.hidden_states, strict=True):
        same(own[real], their[real])


# --------------------------------------------------------------------------------------------------
# Several files


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_several_files_are_read_as_one(folder, suffix):
    whole = weights.read(folder)
    shards = shard(folder, suffix)
    parts = weights.read(folder)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    assert weights.files_of(folder)[1:] == shards
    answers_like_transformers(folder)


def test_large_models_of_transformers_are_in_several_files(tmp_path):
    peer().save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    answers_like_transformers(tmp_path)


def test_a_shard_that_is_missing_damaged_or_lacks_a_weight_is_named(folder):
    shards = shard(folder)
    contents = shards[1].read_bytes()
    shards[1].write_bytes(contents[:-10])
    assert f"{shards[1]} is damaged" in refusal_of(folder)
    tensors = load_file(shards[2])
    name, _ = tensors.popitem()
    shards[1].write_bytes(contents)
    save_file(tensors, shards[2])
    assert f"{shards[2]} is damaged: it lacks {name}" in refusal_of(folder)
    shards[0].unlink()
    assert f"{shards[0]} is missing" in refusal_of(folder)


def test_of_a_shard_only_that_is_read_which_the_index_says_is_in_it(folder):
    whole = weights.read(folder)
    shards = shard(folder)
    tensors = load_file(shards[2])
    elsewhere = next(iter(load_file(shards[0])))
    save_file({**tensors, elsewhere: torch.ones(3), "left.over": torch.ones(3)}, shards[2])
    parts = weights.read(folder)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


# What git leaves in a file's place where git-lfs is not installed.
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_called_so(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_text(POINTER)
    assert f"{name} is a pointer of git-lfs" in refusal_of(folder)
    assert "git lfs pull" in refusal_of(folder)


def test_a_pointer_of_git_lfs_in_a_shards_place_is_called_so(folder):
    shards = shard(folder)
    shards[1].write_text(POINTER)
    assert f"{shards[1]} is a pointer of git-lfs" in refusal_of(folder)


@pytest.mark.parametrize("weight_map", [
    None, {}, [], 3, {"a": 3}, {"a": "../model.safetensors"}, {"a": "/etc/passwd"},
    {"a": "pytorch_model.bin"}, {"a": ""}])
def test_an_index_that_names_no_files_beside_it_is_damaged(folder, weight_map):
    shard(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert "index.json is damaged" in refusal_of(folder)


# --------------------------------------------------------------------------------------------------
# Pickles


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_pickle_of_torch_is_read_in_its_new_and_its_old_format(folder, options):
    to_pickle(folder, **options)
    answers_like_transformers(folder)


def test_safetensors_are_preferred_to_a_pickle(folder):
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    answers_like_transformers(folder)


@pytest.mark.parametrize("wrap", [
    OrderedDict, lambda tensors: {"state_dict": tensors, "epoch": 3},
    lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": []}},
    lambda tensors: {"model": {"state_dict": tensors}},
    lambda tensors: {"model": tensors, "step": torch.tensor(3)},
    lambda tensors: {"state_dict": {"step": torch.tensor(3)}, "model": tensors},
    lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
    lambda tensors: {**tensors, "epoch": 3}])
def test_weights_may_stand_beside_what_a_training_script_saves(folder, wrap):
    whole = weights.read(folder)
    to_pickle(folder, wrap)
    read = weights.read(folder)
    assert read.keys() == whole.keys()
    assert all(torch.equal(read[name], whole[name]) for name in whole)


class Payload:
    """What makes a file when it is unpickled, where code runs."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("write", [
    lambda value, path: path.write_bytes(pickle.dumps(value)),
    lambda value, path: torch.save({"a": torch.zeros(2), "b": value}, path),
    lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False)])
def test_nothing_in_a_pickle_runs(folder, write, tmp_path_factory):
    mark = tmp_path_factory.mktemp("mark") / "made"
    (folder / "model.safetensors").unlink()
    write(Payload(mark), folder / "pytorch_model.bin")
    refusal = refusal_of(folder)
    assert "pytorch_model.bin" in refusal and "\n" not in refusal and len(refusal) < 400
    assert not mark.exists()
    with pytest.raises(UserError):
        Bert.from_pretrained(folder)
    assert not mark.exists()


def test_a_pickled_module_is_refused_by_name(folder):
    (folder / "model.safetensors").unlink()
    torch.save(torch.nn.Linear(2, 2), folder / "pytorch_model.bin")
    assert "torch.nn.modules.linear.Linear" in refusal_of(folder)


def tar(path):
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name))


def circle(path):
    value = {}
    value["model"] = value
    torch.save(value, path)


def bomb(path):
    """A valid file, whose parts somebody has compressed."""
    torch.save({"a": torch.zeros(10 ** 5)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("write, message", [
    (lambda path: path.write_bytes(b""), "damaged"),
    (lambda path: path.write_bytes(b"no pickle"), "damaged"),
    (lambda path: path.write_bytes(pickle.dumps({})), "damaged"),
    (lambda path: torch.save([torch.zeros(3)], path), "no weights"),
    (lambda path: torch.save({"state_dict": 3}, path), "no weights"),
    (lambda path: torch.save({"a": torch.zeros(1).expand(10 ** 12)}, path), "damaged"),
    (lambda path: torch.save({"a": torch.zeros(3, 3).to_sparse()}, path), "damaged"),
    (tar, "damaged"), (bomb, "damaged"), (circle, "no weights"),
    (lambda path: path.mkdir(), "not a file")])
def test_what_holds_no_weights_is_refused_in_one_line(folder, write, message):
    (folder / "model.safetensors").unlink()
    write(folder / "pytorch_model.bin")
    refusal = refusal_of(folder)
    assert message in refusal and "pytorch_model.bin" in refusal
    assert "\n" not in refusal and len(refusal) < 300


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_pickle_that_was_cut_short_is_damaged(folder, options, kept):
    to_pickle(folder, **options)
    path = folder / "pytorch_model.bin"
    contents = path.read_bytes()
    path.write_bytes(contents[:int(kept * len(contents))])
    assert "damaged" in refusal_of(folder)


def test_a_torch_that_cannot_open_a_pickle_safely_opens_none(folder, monkeypatch):
    to_pickle(folder)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    assert "install torch 2.6 or newer" in refusal_of(folder)


# --------------------------------------------------------------------------------------------------
# Checksums


def test_the_checksum_of_one_file_is_the_files_own(folder):
    path = folder / "model.safetensors"
    assert weights.sha256(folder) == disk.file_sha256(path)
    to_pickle(folder)
    assert weights.sha256(folder) == disk.file_sha256(folder / "pytorch_model.bin")


def test_the_checksum_of_several_files_changes_with_each(folder):
    shards = shard(folder)
    before = weights.sha256(folder)
    shards[2].write_bytes(shards[2].read_bytes() + b" ")
    assert weights.sha256(folder) != before


def test_a_models_checksum_is_that_of_its_three_files(folder):
    tokenizer = wordpiece.wordpiece({word: i for i, word in enumerate(wordpiece.SPECIAL)})
    wordpiece.save_tokenizer(tokenizer, folder, 16)
    files = [folder / name for name in ("config.json", "model.safetensors", "tokenizer.json")]
    assert weights.model_sha256(folder) == disk.file_sha256(*files)


# --------------------------------------------------------------------------------------------------
# Downloads


class Hub:
    """Stands in for the hub: it "downloads" the wanted ones of some files into a folder."""

    def __init__(self, folder, *names):
        self.folder, self.names, self.asked = folder, names, []

    def snapshot_download(self, name, allow_patterns):
        self.asked += allow_patterns
        wanted = huggingface_hub.utils.filter_repo_objects(
            self.names, allow_patterns=allow_patterns)
        for file in wanted:
            (self.folder / file).write_text("")
        return str(self.folder)


@pytest.mark.parametrize("on_the_hub, downloaded", [
    (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
    (["model.safetensors.index.json", "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors", "pytorch_model-00001-of-00002.bin"],
     ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
      "model.safetensors.index.json"]),
    (["pytorch_model.bin", "training_args.bin", "optimizer.pt", "modeling_bert.py"],
     ["pytorch_model.bin"])])
def test_no_other_pickle_and_no_code_is_downloaded(tmp_path, monkeypatch, on_the_hub, downloaded):
    hub = Hub(tmp_path, "config.json", "vocab.txt", "tf_model.h5", *on_the_hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    folder = disk.fetch("somebody/bert", disk.MODEL_FILES)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", *downloaded, "vocab.txt"]
    assert not any(pattern.endswith(("*.bin", "*.pt", "*.pkl", "*.py")) for pattern in hub.asked)
