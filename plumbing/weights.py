"""The files of a model's weights: which they are, their checksum, and what is in them.

    files = files_of(folder)      # one file, or an index and its shards
    tensors = read(folder)        # {name in the file: tensor}

Most models are one `model.safetensors`. Some are cut into several, which an `.index.json` lists.
Models from before 2023 are a `pytorch_model.bin`, which is a pickle. A pickle may name any function
to be called when it is opened. So it is opened by torch's own reader (`weights_only=True`), which
builds tensors, refuses every other name, and runs no code.
"""
import pickle
import re
import warnings
import zipfile

from files import disk
from plumbing import wordpiece
from plumbing.cli import UserError

import torch

INDEX = ".index.json"
# What may hold a model's weights. The first that is there is taken.
FILES = ["model.safetensors", "model.safetensors" + INDEX, "pytorch_model.bin",
         "pytorch_model.bin" + INDEX]
# A training script may save its weights under one of these names, beside its optimizer.
NESTED = ("state_dict", "model_state_dict", "model", "module")
# How the name of a BERT's word embeddings ends, whatever stands before it.
WORDS = "embeddings.word_embeddings.weight"


# --------------------------------------------------------------------------------------------------
# Which files


def files_of(folder):
    """The paths of the files that hold a model's weights: one file, or an index and its shards.

    Raises UserError where there are none, where a shard is missing, and where git-lfs has left a
    pointer in a file's place."""
    present = [folder / name for name in FILES if (folder / name).exists()]
    if not present:
        raise UserError(f"{folder} has no model.safetensors and no pytorch_model.bin: it holds no "
                        "weights that are read here")
    disk.check_is_file(present[0])
    disk.check_is_no_pointer(present[0])
    if not present[0].name.endswith(INDEX):
        return present[:1]
    shards = sorted({folder / name for name in read_index(present[0]).values()})
    for shard in shards:
        disk.check_is_file(shard)
        if not shard.exists():
            raise UserError(f"{shard} is missing: {present[0].name} says that it holds a part of "
                            "the weights")
        disk.check_is_no_pointer(shard)
    return [present[0], *shards]


def read_index(path):
    """{name of a weight: name of its shard} of an index. Raises Damaged where it is anything else,
    or names a file of another folder."""
    weight_map = disk.read_json(path).get("weight_map")
    is_map = isinstance(weight_map, dict) and len(weight_map) > 0
    ending = path.name.removesuffix(INDEX).split(".")[1]  # safetensors or bin
    plain = re.compile(rf"[\w-][\w.-]*\.{ending}")
    if not is_map or not all(plain.fullmatch(str(name)) for name in weight_map.values()):
        raise disk.Damaged(f"{path} is damaged: its weight_map does not name the files beside it")
    return weight_map


def sha256(folder):
    """The SHA-256 of a model's weights: that of their file, or of the index and the shards in a
    row."""
    return disk.file_sha256(*files_of(folder))


def model_sha256(folder):
    """The SHA-256 of all that decides what a model answers: its configuration, its weights and its
    tokenizer."""
    return disk.file_sha256(folder / "config.json", *files_of(folder),
                            *wordpiece.files_of(folder))


# --------------------------------------------------------------------------------------------------
# What is in them


def read(folder):
    """A model's weights as {name in the file: tensor}. Raises UserError where they are missing or
    damaged, or where a pickle holds more than tensors."""
    path, *shards = files_of(folder)
    if not path.name.endswith(INDEX):
        return read_file(path)
    tensors = {}
    for shard in shards:
        in_shard = read_file(shard)
        for name, file in read_index(path).items():
            if file != shard.name:
                continue
            if name not in in_shard:
                raise disk.Damaged(f"{shard} is damaged: it lacks {name[:80]}, which {path.name} "
                                   "says is in it")
            tensors[name] = in_shard[name]  # what the index does not name here is not read
    return tensors


def read_file(path):
    """The tensors of one file."""
    return read_pickle(path) if path.suffix == ".bin" else disk.load_tensors(path)


def read_pickle(path):
    """The tensors of a pickle. Raises UserError where it holds anything that torch's reader of
    weights does not know, where it is damaged, and where this torch is too old: before 2.6 that
    reader could be made to run code (CVE-2025-32434)."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise UserError(f"{path} is a pickle, and torch {torch.__version__} cannot open one safely:"
                        " install torch 2.6 or newer, or give the weights as model.safetensors")
    check_archive(path)
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's pickle protocols
            value = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except pickle.UnpicklingError as failure:
        raise UserError(f"{path} {refusal(str(failure))}") from None
    except Exception as failure:  # of many classes
        if "allocate memory" in str(failure):
            raise
        raise disk.Damaged(f"{path} is damaged, or not a file of weights "
                           f"({type(failure).__name__})") from None
    tensors = tensors_in(value)
    if not tensors:
        raise UserError(f"{path} holds no weights: save a model's state_dict() there")
    for name, tensor in tensors.items():
        check_tensor(path, name, tensor)
    return tensors


def check_archive(path):
    """Raises Damaged where a pickle is a compressed archive. torch compresses nothing, and a small
    file may be made that would fill the memory."""
    with open(path, "rb") as file:  # raises the system's own error, if there is one
        if not zipfile.is_zipfile(file):
            return
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        compressed = True
    if compressed:
        raise disk.Damaged(f"{path} is damaged: it is not an archive that torch has written")


def refusal(message):
    """What to say of a pickle that torch's reader refuses. Its own message is long, and advises to
    run the code."""
    name = re.search(r"GLOBAL (\S+)", message)
    if name:
        return (f"holds more than weights ({name[1][:80]}), and was not opened: nothing in it has "
                "run; save the model's state_dict() alone, or as model.safetensors")
    return "is damaged, or holds more than weights: nothing in it has run"


def tensors_in(value):
    """{name: tensor} of what a pickle holds: a state dict, or one inside another dict or two. One
    with a BERT's names goes before others: a tensor that counts steps may stand beside it."""
    dicts = list(state_dicts(value, depth=3))
    berts = [tensors for tensors in dicts if any(name.endswith(WORDS) for name in tensors)]
    return next(iter(berts + dicts), {})


def state_dicts(value, depth):
    """Yields {name: tensor} of each dict with tensors in a value, the outermost first. depth: how
    many dicts deep to look, since a dict may hold itself."""
    if depth == 0 or not isinstance(value, dict):
        return
    tensors = {name: tensor for name, tensor in value.items()
               if isinstance(name, str) and isinstance(tensor, torch.Tensor)}
    if tensors:
        yield tensors
    for name in NESTED:
        yield from state_dicts(value.get(name), depth - 1)


def check_tensor(path, name, tensor):
    """Raises Damaged where a tensor is not an ordinary one, whose numbers are all in the file. One
    number may be spread over any shape, and to compute with it would take all memory."""
    ordinary = tensor.layout == torch.strided and not tensor.is_quantized and tensor.is_cpu
    if ordinary and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes():
        return
    raise disk.Damaged(f"{path} is damaged: {name[:80]} is not an ordinary tensor")
