"""Hugging Face's format of a BERT: `config.json`, and weights under the names of the original BERT.
DistilBERT (Sanh et al. 2019) is a BERT without token types and pooler, and its files are read as
well.

This file checks and renames; `weights.py` reads the files, and `model.py` builds the model. What is
not a BERT, or is damaged, is refused with a UserError.
"""
import dataclasses
import re
import warnings

from files import disk
from plumbing import weights
from plumbing.cli import UserError, say_once

import torch

# --------------------------------------------------------------------------------------------------
# config.json

# The entries that this BERT cannot vary, with the only value that it knows.
ONLY = {"hidden_act": "gelu", "position_embedding_type": "absolute", "tie_word_embeddings": True,
        "is_decoder": False, "add_cross_attention": False}
# DistilBERT's names of the entries, and the original BERT's.
DISTIL_CONFIG = {"dim": "hidden_size", "n_layers": "num_hidden_layers",
                 "n_heads": "num_attention_heads", "hidden_dim": "intermediate_size",
                 "activation": "hidden_act", "dropout": "hidden_dropout_prob",
                 "attention_dropout": "attention_probs_dropout_prob"}


def read_config(folder, BertConfig):
    """`config.json` as a BertConfig, a dataclass. Raises UserError where the file is damaged, or
    where it is not the config of a BERT, or of one that differs from ours."""
    try:
        raw = disk.read_json(folder / "config.json")
    except FileNotFoundError:
        raise UserError(f"{folder} has no config.json: it is not a model's folder") from None
    if raw.get("model_type") is None:
        raw["model_type"] = "bert"
    if raw["model_type"] == "distilbert":
        raw = {DISTIL_CONFIG.get(key, key): value for key, value in raw.items()}
        raw |= {"model_type": "bert", "type_vocab_size": 1}
    check_kind(folder, raw)
    fields = {field.name: checked_value(folder, raw, field)
              for field in dataclasses.fields(BertConfig)}
    config = BertConfig(**fields)
    if config.hidden_size % config.num_attention_heads:
        if "num_attention_heads" not in raw:
            raise UserError(f"{folder}/config.json does not say num_attention_heads, and BERT's "
                            f"{config.num_attention_heads} do not divide hidden_size "
                            f"{config.hidden_size}: add the entry")
        raise UserError(f"{folder}/config.json: {config.num_attention_heads} heads do not divide "
                        f"hidden_size {config.hidden_size}")
    return config


def check_kind(folder, raw):
    """Raises UserError where a config is not that of a BERT such as ours."""
    if raw["model_type"] != "bert":
        raise UserError(f"{folder} is a {str(raw['model_type'])[:40]!r} model, not a BERT")
    for key, ours in ONLY.items():
        if raw.get(key, ours) != ours:
            raise UserError(f"{folder} has {key} = {str(raw[key])[:40]!r}, and this BERT is built "
                            f"with {ours!r} only")


def checked_value(folder, raw, field):
    """The value of a dataclass's field in a config, or else the field's default. Raises UserError
    where it has another type, or is out of range."""
    value = raw.get(field.name, field.default)
    if field.name == "pad_token_id" and value is None:
        value = 0
    types = int if field.type is int else (int, float)
    right_type = isinstance(value, types) and not isinstance(value, bool)
    least = 0 if field.type is float or field.name == "pad_token_id" else 1
    most = 1 if "dropout" in field.name else 10 ** 9
    if not right_type or not least <= value <= most:
        raise UserError(f"{folder}/config.json is damaged: {field.name} = {str(value)[:40]}")
    return value


# --------------------------------------------------------------------------------------------------
# Weights


class UnfitHead(UserError):
    """The MLM head does not fit the rest of the model, which may be read without it."""


def read_weights(folder, mlm_head=None):
    """The weights of a model's folder as {our name: tensor in fp32}, without those of an MLM head
    where `mlm_head` is False. Says which of them are no part of a BERT.

    Raises UserError where they are missing or damaged, or not a BERT's."""
    tensors, unused = from_hugging_face(weights.read(folder), folder, mlm_head)
    if unused:
        examples = ", ".join(name[:60] for name in unused[:4]) + (", ..." if unused[4:] else "")
        say_once(f"{folder}: {len(unused)} of its weights are no part of a BERT, and are not used "
                 f"({examples})")
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


def check_sizes(name, tensors, config):
    """Raises UserError where the tensors do not have the config's sizes. It is called before a
    model is built, so that a config of absurd sizes costs nothing."""
    layers = {key.split(".")[1] for key in tensors if key.startswith("layers.")}
    first_tensors = {"hidden_size": "embeddings.norm.weight",
                     "vocab_size": "embeddings.word_embeddings.weight",
                     "max_position_embeddings": "embeddings.position_embeddings.weight",
                     "type_vocab_size": "embeddings.token_type_embeddings.weight",
                     "intermediate_size": "layers.0.feed_forward_in.weight"}
    sizes = {"num_hidden_layers": len(layers)}
    for field, key in first_tensors.items():
        has_rows = key in tensors and tensors[key].dim() > 0
        sizes[field] = len(tensors[key]) if has_rows else 0
    wrong = [f"{field} is {getattr(config, field):,} in config.json and {n:,} in its weights"
             for field, n in sizes.items() if getattr(config, field) != n]
    if wrong:
        raise UserError(f"{name} is damaged or not a BERT: {'; '.join(wrong)}")


def check_shapes(name, tensors, expected):
    """Raises UserError unless the tensors have the names and shapes of `expected`, the model's
    state dict. It is an UnfitHead where those of the MLM head are others."""
    for key in sorted(expected.keys() | tensors.keys()):
        shape = tuple(tensors[key].shape) if key in tensors else None
        wanted = tuple(expected[key].shape) if key in expected else None
        if shape != wanted:
            kind = UnfitHead if key.startswith("mlm_head.") else UserError
            raise kind(f"{name} is damaged or not a BERT: the weight for {key} has shape "
                       f"{shape or 'missing'}, expected {wanted or 'none of that name'}")


# --------------------------------------------------------------------------------------------------
# Names

# The beginnings of our names, and of the original BERT's.
NAMES = [("embeddings.norm.", "bert.embeddings.LayerNorm."),
         ("embeddings.", "bert.embeddings."),
         ("mlm_head.transform.", "cls.predictions.transform.dense."),
         ("mlm_head.norm.", "cls.predictions.transform.LayerNorm."),
         ("mlm_head.bias", "cls.predictions.bias"),
         ("pooler.", "bert.pooler.dense.")]
# The same after the name of a layer. The three parts of `qkv` are handled below.
LAYER_NAMES = [("attention_output.", "attention.output.dense."),
               ("attention_norm.", "attention.output.LayerNorm."),
               ("feed_forward_in.", "intermediate.dense."),
               ("feed_forward_out.", "output.dense."),
               ("output_norm.", "output.LayerNorm.")]
QKV = ("query", "key", "value")

# DistilBERT's names, and the original BERT's.
DISTIL = [("distilbert.", "bert."), ("transformer.layer.", "encoder.layer."),
          (".attention.q_lin.", ".attention.self.query."),
          (".attention.k_lin.", ".attention.self.key."),
          (".attention.v_lin.", ".attention.self.value."),
          (".attention.out_lin.", ".attention.output.dense."),
          (".sa_layer_norm.", ".attention.output.LayerNorm."),
          (".ffn.lin1.", ".intermediate.dense."), (".ffn.lin2.", ".output.dense."),
          (".output_layer_norm.", ".output.LayerNorm."),
          ("vocab_transform.", "cls.predictions.transform.dense."),
          ("vocab_layer_norm.", "cls.predictions.transform.LayerNorm."),
          ("vocab_projector.", "cls.predictions.decoder.")]

# What a file may hold beside a BERT: heads of next sentences and of fine-tuning.
OTHER_HEADS = ("cls.seq_relationship.", "pre_classifier.", "classifier.", "qa_outputs.")
HEAD = "cls.predictions."  # how the names of the MLM head begin
# The decoder is tied to the word embeddings. Some files hold a second copy of its weight and bias.
TIED = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias"}

# What training scripts put before all names when they save a model inside another one.
WRAPPER = re.compile(r"((module|model|_orig_mod|auto_model|0)\.)+")
WORDS = weights.WORDS


def to_hugging_face(state):
    """Our state dict under the original BERT's names, with `qkv` cut into its three parts."""
    renamed = {}
    for key, tensor in state.items():
        m, rest = split_layer(key, r"layers\.(\d+)\.")
        prefix = "" if m is None else f"bert.encoder.layer.{m}."
        if rest.startswith("qkv."):
            kind = rest.removeprefix("qkv.")  # weight or bias
            # (3h, h) -> three of (h, h); a bias (3h,) -> three of (h,)
            for name, part in zip(QKV, tensor.chunk(3)):
                renamed[f"{prefix}attention.self.{name}.{kind}"] = part.contiguous()
            continue
        theirs = rename(rest, NAMES if m is None else LAYER_NAMES)
        if theirs is None:
            raise KeyError(f"{key} has no name in the original BERT: NAMES lacks it")
        renamed[prefix + theirs] = tensor.contiguous()
    return renamed


def from_hugging_face(tensors, folder, mlm_head=None):
    """The inverse of `to_hugging_face`: tensors of a BERT's or DistilBERT's file -> ({our name:
    tensor in fp32}, [names of those that are no part of a BERT]). mlm_head: False leaves it out.

    A number that is unknown inside the encoder keeps its name, and `check_shapes` refuses it: a
    BERT that computes with it is another model."""
    tensors = without_wrapper(tensors)
    if any(".q_lin." in key for key in tensors):
        tensors = from_distilbert(tensors, folder)
    tensors = with_current_names(tensors, folder)
    if not any(key.startswith("bert.") for key in tensors):
        examples = ", ".join(key[:60] for key in list(tensors)[:3])
        raise UserError(f"{folder} is not a BERT: its weights have other names ({examples})")
    if mlm_head is False:
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(HEAD)}
    remove_tied_copies(tensors, folder)
    ours, parts_of, unused = {}, {}, []
    for key, tensor in tensors.items():
        name, part = our_name(key)
        if name is None or not tensor.is_floating_point():
            unused.append(key)
        elif part:
            parts_of.setdefault(name, {})[part] = to_fp32(key, tensor, folder)
        else:
            put(ours, name, to_fp32(key, tensor, folder), folder)
    for key, parts in parts_of.items():
        put(ours, key, join_qkv(key, parts, folder), folder)
    return ours, sorted(unused)


def put(tensors, name, tensor, folder):
    """Adds a tensor to others. Raises UserError where one of that name is there: of two tensors for
    one place nobody knows which is the model's."""
    if name in tensors:
        raise UserError(f"{folder} holds {name[:80]} twice, under two names: which of the two is "
                        "the model's is not known; remove the other")
    tensors[name] = tensor


def to_fp32(key, tensor, folder):
    """A weight in fp32. Raises UserError where a number in it is NaN or infinite."""
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise UserError(f"{folder} holds NaN or infinity in {key[:80]}: whatever trained it had "
                        "failed")
    return tensor


def our_name(key):
    """(our name, None) of a weight of the original BERT; (our name, "query", "key" or "value") of a
    third of `qkv`; (None, None) of what is no part of a BERT."""
    m, rest = split_layer(key, r"bert\.encoder\.layer\.(\d+)\.")
    if m is None:
        is_inside = key.startswith("bert.encoder.")
        return rename(key, [pair[::-1] for pair in NAMES]) or (key if is_inside else None), None
    part = re.match(r"attention\.self\.(query|key|value)\.", rest)
    if part:
        return f"layers.{m}.qkv.{rest[part.end():]}", part[1]  # weight or bias
    return f"layers.{m}.{rename(rest, [pair[::-1] for pair in LAYER_NAMES]) or rest}", None


def split_layer(key, pattern):
    """("3", the rest of the name) of a tensor in layer 3; (None, the name) of any other."""
    layer = re.match(pattern, key)
    return (None, key) if layer is None else (layer[1], key[layer.end():])


def rename(key, pairs):
    """The name with its beginning replaced by the first of the pairs (old, new) that fits. None
    where none fits."""
    for old, new in pairs:
        if key.startswith(old):
            return new + key.removeprefix(old)
    return None


def without_wrapper(tensors):
    """The tensors without what a training script has put before the names: `module.` of torch's
    DataParallel, `model.` of Lightning."""
    wrapped = [key for key in tensors if key.endswith(WORDS) and WRAPPER.match(key)]
    if len(wrapped) != 1:
        return tensors
    wrapper = WRAPPER.match(wrapped[0])[0]
    inner = {key.removeprefix(wrapper): tensor for key, tensor in tensors.items()}
    return inner if len(inner) == len(tensors) else tensors


def from_distilbert(tensors, folder):
    """DistilBERT's tensors under the original BERT's names. It has no token types, which is the
    same as one token type whose embedding is 0."""
    renamed = {}
    for key, tensor in tensors.items():
        for theirs, berts in DISTIL:
            key = key.replace(theirs, berts)
        put(renamed, key.removeprefix("bert."), tensor, folder)
    words = renamed.get(WORDS)
    if words is not None and words.dim() == 2:
        zeros = torch.zeros(1, words.shape[1])
        renamed["embeddings.token_type_embeddings.weight"] = zeros
    return renamed


def with_current_names(tensors, folder):
    """The tensors with older names replaced: LayerNorm's gamma and beta, and names without `bert.`.
    Other heads than that for masked language modelling are left out."""
    current = {}
    for key, tensor in tensors.items():
        key = key.replace("LayerNorm.gamma", "LayerNorm.weight")
        key = key.replace("LayerNorm.beta", "LayerNorm.bias")
        if key.startswith(("embeddings.", "encoder.", "pooler.")):
            key = "bert." + key
        is_constant = key == "bert.embeddings.position_ids"  # 0, 1, 2, ...
        if not is_constant and not key.startswith(OTHER_HEADS):
            put(current, key, tensor, folder)
    return current


def remove_tied_copies(tensors, folder):
    """Removes the second copies of the decoder. Raises UnfitHead where a copy differs from the
    original: an untied decoder is another model. A copy without an original takes its place."""
    for copy, original in TIED.items():
        if copy not in tensors:
            continue
        duplicate = tensors.pop(copy)
        if not torch.equal(duplicate.float(), tensors.setdefault(original, duplicate).float()):
            raise UnfitHead(f"{folder}: {copy} differs from {original}, and this BERT ties the two")


def join_qkv(key, parts, folder):
    """{"query", "key", "value": (h, h)} -> (3h, h), or of biases (h,) -> (3h,). Raises UserError
    where one of the three is missing or has another shape than the others."""
    shapes = {part.shape for part in parts.values()}
    if len(parts) < 3 or len(shapes) > 1 or parts["query"].dim() == 0:
        raise UserError(f"{folder} is damaged or not a BERT: {key} lacks its queries, keys or "
                        "values")
    return torch.cat([parts[name] for name in QKV])
