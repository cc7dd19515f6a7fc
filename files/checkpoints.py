"""Hugging Face's format of a BERT: `config.json`, and weights under the names of the original BERT,
in one file or in several, as safetensors or as a pickle. DistilBERT (Sanh et al. 2019) is a BERT
without token types and pooler, and its files are read as well.

A pickle may name any function to be called when it is opened. So it is opened by torch's own reader
(`weights_only=True`), which builds tensors, refuses every other name, and runs no code. What is not
a BERT, or is damaged, is refused with a UserError."""
import dataclasses
import re
import warnings

from files import disk, wordpiece
from program.cli import UserError, is_out_of_memory, one_line, say_once

import torch

# --------------------------------------------------------------------------------------------------
# config.json

# The entries that this BERT cannot vary, with the only value that it knows.
ONLY = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
        "tie_word_embeddings": True, "is_decoder": False, "add_cross_attention": False}
# DistilBERT's names of the entries, and the original BERT's.
DISTIL_CONFIG = {"dim": "hidden_size", "n_layers": "num_hidden_layers",
                 "n_heads": "num_attention_heads", "hidden_dim": "intermediate_size",
                 "activation": "hidden_act", "dropout": "hidden_dropout_prob",
                 "attention_dropout": "attention_probs_dropout_prob"}


def read_config(folder, BertConfig):
    """`config.json` as a BertConfig, a dataclass. Raises UserError where the file is damaged, or
    where it is not the config of a BERT, or of one that differs from ours."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} has no config.json: it is not a model's folder")
    raw = {key: value for key, value in disk.read_json(path).items()
           if value is not None or key not in ("model_type", "pad_token_id")}
    if raw.get("model_type") == "distilbert":
        raw = {DISTIL_CONFIG.get(key, key): value for key, value in raw.items()}
        raw |= {"model_type": "bert", "type_vocab_size": 1}
    for key, ours in ONLY.items():
        if raw.get(key, ours) != ours:
            raise UserError(f"{folder} has {key} = {str(raw[key])[:40]!r}, and this BERT is built "
                            f"with {ours!r} only")
    config = BertConfig(**{field.name: checked_value(path, raw, field)
                           for field in dataclasses.fields(BertConfig)})
    if config.hidden_size % config.num_attention_heads:
        raise UserError(f"{path}: num_attention_heads = {config.num_attention_heads} (12 where the "
                        f"entry is missing) does not divide hidden_size = {config.hidden_size}")
    return config


def checked_value(path, raw, field):
    """The value of a dataclass's field in a config, or else the field's default. Raises UserError
    where it has another type, or is out of range."""
    value = raw.get(field.name, field.default)
    least = 0 if field.type is float or field.name == "pad_token_id" else 1
    most = 1 if "dropout" in field.name else 10 ** 8
    if type(value) not in (int, field.type) or not least <= value <= most:
        raise UserError(f"{path} is damaged: {field.name} = {str(value)[:40]}")
    return value


# --------------------------------------------------------------------------------------------------
# The files

INDEX = ".index.json"
# What may hold a model's weights. The first that is there is taken.
FILES = ["model.safetensors", "model.safetensors" + INDEX, "pytorch_model.bin",
         "pytorch_model.bin" + INDEX]
# A training script may save its weights under one of these names, beside its optimizer.
NESTED = ("state_dict", "model_state_dict", "model", "module")
# How the name of a BERT's word embeddings ends, whatever stands before it.
WORDS = "embeddings.word_embeddings.weight"


def weight_files(folder):
    """The paths of the files that hold a model's weights: one file, or an index and its shards.

    Raises UserError where there are none, where a shard is missing, and where git-lfs has left a
    pointer in a file's place."""
    path = next((folder / name for name in FILES if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder} has no model.safetensors and no pytorch_model.bin: it holds no "
                        "weights that are read here")
    paths = [path]
    if path.name.endswith(INDEX):
        paths += sorted({folder / name for name in weight_map(path).values()})
    for path in paths:
        disk.check_is_file(path)
        if not path.exists():
            raise UserError(f"{path} is missing: {paths[0].name} says that it holds a part of the "
                            "weights")
        disk.check_is_no_pointer(path)
    return paths


def weight_map(path):
    """{name of a weight: name of its shard} of an index. Raises Damaged where it is anything else,
    or names a file of another folder."""
    names = disk.read_json(path).get("weight_map")
    ending = path.name.removesuffix(INDEX).split(".")[1]  # safetensors or bin
    plain = re.compile(rf"[\w-][\w.-]*\.{ending}")
    if not isinstance(names, dict) or not names or not all(
            plain.fullmatch(str(name)) for name in names.values()):
        raise disk.Damaged(f"{path} is damaged: its weight_map does not name the files beside it")
    return names


def weights_sha256(folder):
    """The SHA-256 of a model's weights: that of their file, or of the index and the shards in a
    row."""
    return disk.file_sha256(*weight_files(folder))


def model_sha256(folder):
    """The SHA-256 of all that decides what a model answers: its configuration, its weights and its
    tokenizer."""
    return disk.file_sha256(folder / "config.json", *weight_files(folder),
                            *wordpiece.tokenizer_files(folder))


def read_tensors(folder):
    """A model's weights as {name in the file: tensor}. Raises UserError where they are missing or
    damaged, or where a pickle holds more than tensors."""
    path, *shards = weight_files(folder)
    if not shards:
        return tensors_of(path)
    places = weight_map(path)  # what it does not name in a shard is not read there
    return {name: tensor for shard in shards for name, tensor in tensors_of(shard).items()
            if places.get(name) == shard.name}


def tensors_of(path):
    """{name: tensor} of one file."""
    from safetensors.torch import load  # here: like torch, only files of tensors need it
    if path.suffix != ".bin":
        # Read, and not mapped into memory, which some file systems of a network cannot do.
        contents = path.read_bytes()
        try:
            return load(contents)
        except Exception as failure:  # the library has one class for the header, others for tensors
            raise disk.Damaged(f"{path} is damaged: {one_line(failure)}") from None
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's pickle protocols
        try:
            tensors = state_dict_in(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as failure:  # of many classes
            if is_out_of_memory(failure):
                raise
            name = re.search(r"GLOBAL (\S+)|$", str(failure))[1] or type(failure).__name__
            raise disk.Damaged(f"{path} is damaged, or holds more than weights ({name[:80]}), and "
                               "nothing in it has run: save the model's state_dict() alone, or as "
                               "model.safetensors") from None
    if not tensors:
        raise UserError(f"{path} holds no weights of a BERT: save a model's state_dict() there")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_cpu:
            raise disk.Damaged(f"{path} is damaged: {name[:80]} is not an ordinary tensor")
    return tensors


def state_dict_in(value, depth=3):
    """{name: tensor} of what a pickle holds: a state dict, or one inside another dict or two. One
    with a BERT's names goes before others: a tensor that counts steps may stand beside it.

    depth: how many dicts deep to look, since a dict may hold itself."""
    if depth == 0 or not isinstance(value, dict):
        return {}
    tensors = {name: tensor for name, tensor in value.items()
               if isinstance(name, str) and isinstance(tensor, torch.Tensor)}
    inner = [state_dict_in(value.get(name), depth - 1) for name in NESTED]
    return next((found for found in [tensors, *inner]
                 if any(name.endswith(WORDS) for name in found)), tensors)


def save_weights(path, state):
    """Writes our state dict as safetensors under the original BERT's names, whole or not at all.

    The same tensors make the same file, byte for byte: the library writes several entries of
    metadata in random order, and here is one, without which transformers does not open it."""
    from safetensors.torch import save  # as above
    contents = save(to_hugging_face(state), {"format": "pt"})
    disk.replace(path, lambda temporary: temporary.write_bytes(contents))


# --------------------------------------------------------------------------------------------------
# Names

# The beginnings of our names, and of the original BERT's. # is a number. `qkv` is three of theirs.
NAMES = [("layers.#.query.", "bert.encoder.layer.#.attention.self.query."),
         ("layers.#.key.", "bert.encoder.layer.#.attention.self.key."),
         ("layers.#.value.", "bert.encoder.layer.#.attention.self.value."),
         ("layers.#.attention_output.", "bert.encoder.layer.#.attention.output.dense."),
         ("layers.#.attention_norm.", "bert.encoder.layer.#.attention.output.LayerNorm."),
         ("layers.#.feed_forward_in.", "bert.encoder.layer.#.intermediate.dense."),
         ("layers.#.feed_forward_out.", "bert.encoder.layer.#.output.dense."),
         ("layers.#.output_norm.", "bert.encoder.layer.#.output.LayerNorm."),
         ("embeddings.norm.", "bert.embeddings.LayerNorm."),
         ("embeddings.", "bert.embeddings."),
         ("mlm_head.transform.", "cls.predictions.transform.dense."),
         ("mlm_head.norm.", "cls.predictions.transform.LayerNorm."),
         ("mlm_head.bias", "cls.predictions.bias"),
         ("pooler.", "bert.pooler.dense.")]
QKV = ("query", "key", "value")
# Patterns of other names, and what stands for them: what training scripts put before all names when
# they save a model inside another one, DistilBERT's names, and older ones.
OTHERS = [(r"^((module|model|_orig_mod|auto_model|0)\.)+"
           r"(?=(bert|distilbert|cls|embeddings|encoder|pooler|transformer|vocab_\w+)\.)", ""),
          (r"^distilbert\.", "bert."), (r"\btransformer\.layer\.", "encoder.layer."),
          (r"\.attention\.q_lin\.", ".attention.self.query."),
          (r"\.attention\.k_lin\.", ".attention.self.key."),
          (r"\.attention\.v_lin\.", ".attention.self.value."),
          (r"\.attention\.out_lin\.", ".attention.output.dense."),
          (r"\.sa_layer_norm\.", ".attention.output.LayerNorm."),
          (r"\.ffn\.lin1\.", ".intermediate.dense."), (r"\.ffn\.lin2\.", ".output.dense."),
          (r"\.output_layer_norm\.", ".output.LayerNorm."),
          (r"^vocab_transform\.", "cls.predictions.transform.dense."),
          (r"^vocab_layer_norm\.", "cls.predictions.transform.LayerNorm."),
          (r"^vocab_projector\.", "cls.predictions.decoder."),
          (r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"),
          (r"^(?=(embeddings|encoder|pooler)\.)", "bert.")]
HEAD = "cls.predictions."  # how the names of the MLM head begin
# What a file may hold beside a BERT: heads of next sentences and of fine-tuning, and 0, 1, 2, ...
BESIDE = ("cls.seq_relationship.", "pre_classifier.", "classifier.", "qa_outputs.",
          "bert.embeddings.position_ids")
# The decoder is tied to the word embeddings. Some files hold a second copy of its weight and bias.
TIED = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias"}


def renamed(key, pairs):
    """A name with its beginning replaced by the first of the pairs (old, new) that fits. None where
    none fits."""
    for old, new in pairs:
        found = re.match(re.escape(old).replace(r"\#", r"(\d+)"), key)
        if found:
            return new.replace("#", "".join(found.groups())) + key[found.end():]
    return None


def to_hugging_face(state):
    """Our state dict under the original BERT's names, with `qkv` cut into its three parts."""
    theirs = {}
    for key, tensor in state.items():
        # (3h, h) -> three of (h, h); a bias (3h,) -> three of (h,)
        parts = dict(zip(QKV, tensor.chunk(3))) if ".qkv." in key else {"qkv": tensor}
        for part, piece in parts.items():
            name = renamed(key.replace("qkv", part), NAMES)
            if name is None:
                raise KeyError(f"{key} has no name in the original BERT: NAMES lacks it")
            theirs[name] = piece.contiguous()
    return theirs


def from_hugging_face(tensors, folder, mlm_head=None):
    """The inverse of `to_hugging_face`: tensors of a BERT's or DistilBERT's file -> ({our name:
    tensor in fp32}, [names of those that are no part of a BERT]). mlm_head: False leaves it out.

    A name that is unknown inside the encoder is kept, and so is a part of `qkv` that does not fit
    the others. `check_shapes` refuses it: a BERT that computes with it is another model. Raises
    UserError where this is no BERT, or is damaged."""
    theirs = berts_tensors(tensors, folder, mlm_head)
    pairs = [pair[::-1] for pair in NAMES]
    ours, unused = {}, []
    for key, tensor in theirs.items():
        if mlm_head is False and key.startswith(HEAD):
            continue
        name = renamed(key, pairs) or (key if key.startswith("bert.encoder.") else None)
        if name is None or not tensor.is_floating_point():
            unused.append(key)
        elif not tensor.isfinite().all():
            raise UserError(f"{folder} holds NaN or infinity in {key[:80]}: whatever trained it "
                            "had failed")
        else:
            ours[name] = tensor.float()
    for query in [key for key in ours if re.match(r"layers\.\d+\.query\.", key)]:
        # Three of (h, h) -> (3h, h); of biases (h,) -> (3h,). Parts that do not fit stay.
        names = [query.replace("query", part) for part in QKV]
        parts = [torch.atleast_1d(ours[name]) for name in names if name in ours]
        if len(parts) == 3 and len({part.shape for part in parts}) == 1:
            ours[query.replace("query", "qkv")] = torch.cat(parts)
            for name in names:
                del ours[name]
    return ours, sorted(unused)


def berts_tensors(tensors, folder, mlm_head):
    """The tensors of a file under the original BERT's names, without other heads, and without the
    second copies of the decoder. A copy without an original takes its place.

    Raises UnfitHead where a copy differs from the original: an untied decoder is another model."""
    theirs = {}
    for key, tensor in tensors.items():
        for old, new in OTHERS:
            key = re.sub(old, new, key)
        if key in theirs:
            raise UserError(f"{folder} holds {key[:80]} twice, under two names: which of the two "
                            "is the model's is not known; remove the other")
        if not key.startswith(BESIDE):
            theirs[key] = tensor
    if not any(key.startswith("bert.") for key in theirs):
        examples = ", ".join(key[:60] for key in list(theirs)[:3])
        raise UserError(f"{folder} is not a BERT: its weights have other names ({examples})")
    for copy, original in TIED.items():
        if copy not in theirs:
            continue
        duplicate = theirs.pop(copy)
        is_same = torch.equal(duplicate.float(), theirs.setdefault(original, duplicate).float())
        if not is_same and mlm_head is not False:
            raise UnfitHead(f"{folder}: {copy} differs from {original}, and this BERT ties the two")
    words = theirs.get("bert." + WORDS)
    if any(".q_lin." in key for key in tensors) and words is not None:
        # DistilBERT has no token types: the same as one type, whose embedding is 0.
        theirs["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(1, *words.shape[1:])
    return theirs


# --------------------------------------------------------------------------------------------------
# A model's weights, and what is checked of them


class UnfitHead(UserError):
    """The MLM head does not fit the rest of the model, which may be read without it."""


def read_weights(folder, layers, mlm_head=None):
    """The weights of a model's folder as {our name: tensor in fp32}, without those of an MLM head
    where `mlm_head` is False. Says which of them are no part of a BERT.

    Raises UserError where they are missing or damaged, not a BERT's, or of another number of
    layers: it is told before a model is built, so that a config of a million layers costs nothing.
    """
    tensors, unused = from_hugging_face(read_tensors(folder), folder, mlm_head)
    if unused:
        examples = ", ".join(name[:60] for name in unused[:4]) + (", ..." if unused[4:] else "")
        say_once(f"{folder}: {len(unused)} of its weights are no part of a BERT, and are not used "
                 f"({examples})")
    found = len({key.split(".")[1] for key in tensors if key.startswith("layers.")})
    if found != layers:
        raise UserError(f"{folder} is damaged or not a BERT: num_hidden_layers is {layers:,} in "
                        f"config.json and {found:,} in its weights")
    return tensors


def check_head(name, tensors, wanted):
    """Whether the checkpoint has an MLM head. Raises UserError where one is demanded (`wanted` is
    True) and there is none; warns where it is None."""
    has_head = any(key.startswith("mlm_head.") for key in tensors)
    if wanted and not has_head:
        raise UserError(f"{name} has no masked-language-model head (no cls.predictions.* in its "
                        "weights): use a checkpoint that was saved with one, like a "
                        "BertForMaskedLM")
    if wanted is None and not has_head:
        warnings.warn(f"{name} has no masked-language-model head: it gives hidden states, and no "
                      "logits", stacklevel=3)
    return has_head


def check_shapes(name, tensors, expected):
    """Raises UserError unless the tensors have the names and shapes of `expected`, the model's
    state dict. It is an UnfitHead where those of the MLM head are others."""
    for key in sorted(expected.keys() | tensors.keys()):
        shape = tuple(tensors[key].shape) if key in tensors else "missing"
        wanted = tuple(expected[key].shape) if key in expected else "none of that name"
        if shape != wanted:
            kind = UnfitHead if key.startswith("mlm_head.") else UserError
            raise kind(f"{name} is damaged or not a BERT: the weight for {key} has shape {shape}, "
                       f"expected {wanted}")
