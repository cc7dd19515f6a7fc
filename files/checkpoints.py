"""Hugging Face's format of a BERT: `config.json`, and weights under the names of the original BERT,
in one file or in several, as safetensors or as a pickle. DistilBERT (Sanh et al. 2019) is a BERT
without token types and pooler, and its files are read as well.

A pickle may name any function to be called when it is opened. So torch's own reader opens it
(`weights_only=True`), which builds tensors, refuses every other name, and runs no code."""
import dataclasses
import re
import warnings

from files import disk, wordpiece
from program.cli import UserError, is_out_of_memory, say_once

import torch
from safetensors.torch import load, save

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
    """`config.json` as a BertConfig, a dataclass. An entry that is null is missing, and has its
    default. Raises UserError where the file is damaged, or this BERT cannot be like it."""
    path = folder / "config.json"
    if not path.exists():
        raise UserError(f"{folder} has no config.json: it is not a model's folder")
    raw = {key: value for key, value in disk.read_json(path).items() if value is not None}
    if raw.get("model_type") == "distilbert":
        raw = {DISTIL_CONFIG.get(key, key): value for key, value in raw.items()}
        raw |= {"model_type": "bert", "type_vocab_size": 1}
    for key, ours in ONLY.items():
        if raw.get(key, ours) != ours:
            raise UserError(f"{folder} has {key} = {str(raw[key])[:40]!r}, and this BERT is built "
                            f"with {ours!r} only")
    values = {}
    for field in dataclasses.fields(BertConfig):
        value = values[field.name] = raw.get(field.name, field.default)
        least = 0 if field.type is float or field.name == "pad_token_id" else 1
        most = {"num_hidden_layers": 1000}.get(field.name, 1 if field.type is float else 10 ** 8)
        if type(value) not in (int, field.type) or not least <= value <= most:
            raise UserError(f"{path} is damaged: {field.name} = {str(value)[:40]}")
    heads, h = values["num_attention_heads"], values["hidden_size"]
    if h % heads:
        raise UserError(f"{path}: num_attention_heads = {heads} does not divide hidden_size = {h}")
    return BertConfig(**values)


# --------------------------------------------------------------------------------------------------
# The files

INDEX = ".index.json"
# What may hold the weights. The first that is there is taken.
FILES = [name + ending for name in ("model.safetensors", "pytorch_model.bin")
         for ending in ("", INDEX)]
# A training script may save its weights under one of these names, beside its optimizer.
NESTED = ("state_dict", "model_state_dict", "model", "module")
WORDS = "embeddings.word_embeddings.weight"  # how their name ends, whatever stands before it


def weight_files(folder):
    """The paths of the files that hold a model's weights: one file, or an index and its shards.
    Raises UserError where one is missing."""
    path = next((folder / name for name in FILES if (folder / name).exists()), None)
    if path is None:
        raise UserError(f"{folder} has no model.safetensors and no pytorch_model.bin")
    shards = sorted({folder / name for name in weight_map(path).values()})
    for shard in (path, *shards):
        disk.check_is_file(shard)
        if not shard.exists():
            raise UserError(f"{shard} is missing: {path.name} says that it holds weights")
    return [path, *shards]


def weight_map(path):
    """{name of a weight: name of its shard} of an index, {} of a file of weights. Raises Damaged
    where an index names something else than files beside it."""
    names = disk.read_json(path).get("weight_map") if path.name.endswith(INDEX) else {}
    if not isinstance(names, dict) or not all(
            re.fullmatch(r"[\w-][\w.-]*\.(safetensors|bin)", str(name)) for name in names.values()):
        raise disk.Damaged(f"{path} is damaged: its weight_map does not name the files beside it")
    return names


def weights_sha256(folder):
    """The SHA-256 of a model's weights: of their file, or of the index and the shards in a row."""
    return disk.file_sha256(*weight_files(folder))


def model_sha256(folder):
    """The SHA-256 of all that decides what a model answers: configuration, weights, tokenizer."""
    return disk.file_sha256(folder / "config.json", *weight_files(folder),
                            *wordpiece.tokenizer_files(folder))


def tensors_of(path):
    """{name: tensor} of one file."""
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python's pickle protocols
        try:
            if path.suffix != ".bin":
                return load(file.read())  # some file systems of a network map no file into memory
            return state_dict_in(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as failure:  # of many classes
            if is_out_of_memory(failure):
                raise
            problem = f"{path} is damaged, or holds more than weights ({type(failure).__name__})"
            raise disk.Damaged(f"{problem}: save the weights alone, as safetensors") from None


def state_dict_in(value):
    """{name: dense tensor} of what a pickle holds: a state dict, or one inside a dict, which is
    known by a BERT's names: a tensor that counts steps may stand beside it."""
    places = [value, *map(value.get, NESTED)] if isinstance(value, dict) else [{}]
    found = next((place for place in places if isinstance(place, dict)
                  and any(str(name).endswith(WORDS) for name in place)), places[0])
    return {name: tensor for name, tensor in found.items()
            if isinstance(name, str) and isinstance(tensor, torch.Tensor)
            and tensor.is_cpu and tensor.layout == torch.strided}


def save_weights(path, state):
    """Writes our state dict as safetensors under the original BERT's names, whole or not at all.
    The same tensors make the same file: only several entries of metadata have a random order."""
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
# What a file may hold beside a BERT: heads of next sentences and of fine-tuning, and 0, 1, 2, ...
BESIDE = ("cls.seq_relationship.", "pre_classifier.", "classifier.", "qa_outputs.",
          "bert.embeddings.position_ids")
# The decoder is tied to the word embeddings. Some files hold a second copy of its weight and bias.
TIED = {"cls.predictions.decoder.weight": "bert." + WORDS,
        "cls.predictions.decoder.bias": "cls.predictions.bias"}


def renamed(key, pairs):
    """A name whose beginning is replaced by the first of the pairs (old, new) that fits, or None"""
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
            theirs[renamed(key.replace("qkv", part), NAMES)] = piece.contiguous()
    return theirs


def from_hugging_face(tensors, folder, mlm_head=None):
    """The inverse of `to_hugging_face`: tensors of a BERT's or DistilBERT's file -> ({our name:
    tensor in fp32}, [names of those that are no part of a BERT]). mlm_head: False leaves it out.

    An unknown name in the encoder stays, and so does a part of `qkv` that does not fit the others:
    `check_shapes` refuses it, since a BERT that computes with it is another model."""
    pairs = [pair[::-1] for pair in NAMES]
    ours, unused = {}, []
    for key, tensor in berts_tensors(tensors, folder, mlm_head).items():
        name = renamed(key, pairs) or (key if key.startswith("bert.encoder.") else None)
        if name is None or not tensor.is_floating_point():
            unused.append(key)
        elif not tensor.isfinite().all():
            raise UserError(f"{folder} holds NaN or infinity in {key[:80]}: its training failed")
        else:
            ours[name] = tensor.float()
    for query in [key for key in ours if re.match(r"layers\.\d+\.query\.", key)]:
        # Three of (h, h) -> (3h, h); of biases (h,) -> (3h,).
        names = [query.replace("query", part) for part in QKV]
        shapes = [ours[name].shape for name in names if name in ours]
        if len(shapes) == 3 and len(set(shapes)) == 1 and shapes[0]:
            ours[query.replace("query", "qkv")] = torch.cat([ours.pop(name) for name in names])
    return ours, sorted(unused)


def berts_tensors(tensors, folder, mlm_head):
    """The tensors of a file under the original BERT's names, without heads that are not read, and
    without the second copies of the decoder. A copy without an original takes its place."""
    theirs = {}
    for key, tensor in tensors.items():
        for old, new in OTHERS:
            key = re.sub(old, new, key)
        if key in theirs:
            raise UserError(f"{folder} holds {key[:80]} twice, under two names: remove one")
        if not key.startswith(BESIDE):
            theirs[key] = tensor
    if not any(key.startswith("bert.") for key in theirs):
        examples = ", ".join(key[:60] for key in list(theirs)[:3]) or "none"
        raise UserError(f"{folder} is not a BERT: its weights have other names ({examples})")
    for copy, original in TIED.items():
        if copy in theirs:
            duplicate = theirs.pop(copy).float()
            is_same = torch.equal(duplicate, theirs.setdefault(original, duplicate).float())
            if not is_same and mlm_head is not False:
                raise UnfitHead(f"{folder}: {copy} differs from {original}: this BERT ties them")
    words = theirs.get("bert." + WORDS)
    if any(".q_lin." in key for key in tensors) and words is not None:
        # DistilBERT has no token types: the same as one type, whose embedding is 0.
        theirs["bert.embeddings.token_type_embeddings.weight"] = torch.zeros(1, *words.shape[1:])
    return {key: tensor for key, tensor in theirs.items()
            if mlm_head is not False or not key.startswith("cls.predictions.")}


class UnfitHead(UserError):
    """The MLM head does not fit the rest of the model, which may be read without it."""


def read_weights(folder, mlm_head=None):
    """The weights in a folder as {our name: tensor in fp32}, without an MLM head if it is False.
    Says which are no part of a BERT. Raises UserError where they are damaged or another model's."""
    path, *shards = weight_files(folder)
    places = weight_map(path)  # what it does not name in a shard is not read there
    tensors = {}
    for file in shards or [path]:
        tensors |= {name: tensor for name, tensor in tensors_of(file).items()
                    if places.get(name, path.name) == file.name}
    ours, unused = from_hugging_face(tensors, folder, mlm_head)
    if unused:
        say_once(f"{folder}: {len(unused)} of its weights are no part of a BERT, and are not used "
                 f"({', '.join(name[:60] for name in unused[:4])})")
    return ours


def check_head(name, tensors, wanted):
    """Whether the checkpoint has an MLM head. Where it has none, raises UserError if one is
    demanded (`wanted` is True), and warns if `wanted` is None."""
    has_head = any(key.startswith("mlm_head.") for key in tensors)
    problem = f"{name} has no masked-language-model head (no cls.predictions.* in its weights)"
    if wanted and not has_head:
        raise UserError(f"{problem}: use a checkpoint that was saved as a BertForMaskedLM")
    if wanted is None and not has_head:
        warnings.warn(f"{problem}: it gives hidden states, and no logits", stacklevel=3)
    return has_head


def check_shapes(name, tensors, expected):
    """Raises UserError unless the tensors have the names and shapes of `expected`, the model's
    state dict, and UnfitHead where those of the MLM head differ."""
    for key in sorted(expected.keys() | tensors.keys()):
        shape = tuple(tensors[key].shape) if key in tensors else "missing"
        wanted = tuple(expected[key].shape) if key in expected else "none of that name"
        if shape != wanted:
            kind = UnfitHead if key.startswith("mlm_head.") else UserError
            raise kind(f"{name} is damaged or not a BERT: the weight for {key} has shape {shape}, "
                       f"expected {wanted}")
