"""Hugging Face's format of a BERT: `config.json`, and `model.safetensors` under the names of the original BERT. DistilBERT (Sanh
et al. 2019), a BERT without token types and pooler, is read as one, too.

Only files are read here: what is no BERT, is damaged, or is a pickle ends in one line. `model.py` builds the model from them.
"""
import dataclasses
import re
import warnings

from plumbing import disk
from plumbing.cli import UserError

import torch


def read_config(folder, BertConfig):
    """`config.json` as a BertConfig. Raises UserError where it is no JSON, no BERT, or a BERT that this one is not."""
    try:
        raw = disk.read_json(folder / "config.json")
    except FileNotFoundError:
        raise UserError(f"{folder} has no config.json: it is not a model's folder") from None
    if raw.get("model_type") == "distilbert":
        raw = {DISTIL_CONFIG.get(key, key): value for key, value in raw.items()} | {"model_type": "bert", "type_vocab_size": 1}
    if raw.get("model_type", "bert") != "bert":
        raise UserError(f"{folder} is a {str(raw['model_type'])[:40]!r} model, not a BERT")
    for key, ours in (("hidden_act", "gelu"), ("position_embedding_type", "absolute"), ("tie_word_embeddings", True),
                      ("is_decoder", False), ("add_cross_attention", False)):
        if raw.get(key, ours) != ours:
            raise UserError(f"{folder} has {key} = {str(raw[key])[:40]!r}, and this BERT is built with {ours!r} only")
    fields = {}
    for field in dataclasses.fields(BertConfig):
        value = raw.get(field.name, field.default)
        value = 0 if field.name == "pad_token_id" and value is None else value
        least = 0 if field.type is float or field.name == "pad_token_id" else 1
        most = 1 if "dropout" in field.name else 10 ** 9
        right_type = isinstance(value, int if field.type is int else (int, float)) and not isinstance(value, bool)
        if not right_type or not least <= value <= most:
            raise UserError(f"{folder}/config.json is damaged: {field.name} = {str(value)[:40]}")
        fields[field.name] = value
    config = BertConfig(**fields)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(f"{folder}/config.json: {config.num_attention_heads} heads do not divide hidden_size "
                        f"{config.hidden_size}")
    return config


def read_weights(folder):
    """`model.safetensors` under this file's names, in fp32."""
    path = folder / "model.safetensors"
    if not path.exists():
        if (folder / "pytorch_model.bin").exists():
            raise UserError(f"{folder} has only pytorch_model.bin, a pickle, and a pickle can run any code when it is opened. "
                            f"If you trust it, convert it once: python -c \"from transformers import AutoModelForMaskedLM as "
                            f"M; M.from_pretrained('{folder}').save_pretrained('{folder}')\"")
        raise UserError(f"{folder} has no model.safetensors: it holds no weights that are read here (pickles are not)")
    tensors, _ = disk.load_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path} holds NaN or infinity in {name[:80]}: whatever trained it had failed")
    return from_hugging_face(tensors, folder)


def check_head(name, tensors, wanted):
    """Whether the checkpoint has an MLM head. Raises UserError where one is demanded (`wanted` is
    True) and there is none; warns where it is None."""
    has_head = any(key.startswith("mlm_head.") for key in tensors)
    if wanted and not has_head:
        raise UserError(f"{name} has no masked-language-model head (no cls.predictions.* in its "
                        "model.safetensors): use a checkpoint that was saved with one, like a "
                        "BertForMaskedLM")
    if wanted is None and not has_head:
        warnings.warn(f"{name} has no masked-language-model head: it gives hidden states, and no "
                      "logits", stacklevel=3)
    return has_head


def check_sizes(name, tensors, config):
    """Raises UserError where the tensors have other sizes than the config. It is called before
    anything is built, so that a config of absurd sizes costs nothing."""
    layers = {key.split(".")[1] for key in tensors if key.startswith("layers.")}
    first_tensors = {"hidden_size": "embeddings.norm.weight",
                     "vocab_size": "embeddings.word_embeddings.weight",
                     "max_position_embeddings": "embeddings.position_embeddings.weight",
                     "type_vocab_size": "embeddings.token_type_embeddings.weight",
                     "intermediate_size": "layers.0.feed_forward_in.weight"}
    sizes = {"num_hidden_layers": len(layers)}
    for field, key in first_tensors.items():
        shape = tuple(tensors[key].shape) if key in tensors else ()
        sizes[field] = (shape or (0,))[0]
    wrong = [f"{field} is {getattr(config, field):,} in config.json and {n:,} in model.safetensors"
             for field, n in sizes.items() if getattr(config, field) != n]
    if wrong:
        raise UserError(f"{name} is damaged or not a BERT: {'; '.join(wrong)}")


def check_shapes(name, tensors, expected, ignore_head):
    """Raises UserError unless the tensors have the names and shapes of the model's, which are
    `expected`. ignore_head: tensors of an MLM head that the model was built without."""
    for key in sorted(expected.keys() | tensors.keys()):
        if key.startswith("mlm_head.") and ignore_head:
            continue
        shape, wanted = (tuple(one[key].shape) if key in one else None
                         for one in (tensors, expected))
        if shape != wanted:
            raise UserError(f"{name} is damaged or not a BERT: the weight for {key} has shape "
                            f"{shape or 'missing'}, expected {wanted or 'none of that name'}")


# Our names, and the original BERT's. Layers and the three parts of `qkv` are handled below.
NAMES = [("embeddings.norm.", "bert.embeddings.LayerNorm."),
         ("embeddings.", "bert.embeddings."),
         ("attention_output.", "attention.output.dense."),
         ("attention_norm.", "attention.output.LayerNorm."),
         ("feed_forward_in.", "intermediate.dense."),
         ("feed_forward_out.", "output.dense."),
         ("output_norm.", "output.LayerNorm."),
         ("mlm_head.transform.", "cls.predictions.transform.dense."),
         ("mlm_head.norm.", "cls.predictions.transform.LayerNorm."),
         ("mlm_head.bias", "cls.predictions.bias"),
         ("pooler.", "bert.pooler.dense.")]
QKV = ("query", "key", "value")


# DistilBERT's names, and the original BERT's.
DISTIL_CONFIG = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "hidden_dim": "intermediate_size",
                 "activation": "hidden_act", "dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
DISTIL = [("distilbert.", "bert."), ("transformer.layer.", "encoder.layer."), (".attention.q_lin.", ".attention.self.query."),
          (".attention.k_lin.", ".attention.self.key."), (".attention.v_lin.", ".attention.self.value."),
          (".attention.out_lin.", ".attention.output.dense."), (".sa_layer_norm.", ".attention.output.LayerNorm."),
          (".ffn.lin1.", ".intermediate.dense."), (".ffn.lin2.", ".output.dense."), (".output_layer_norm.", ".output.LayerNorm."),
          ("vocab_transform.", "cls.predictions.transform.dense."), ("vocab_layer_norm.", "cls.predictions.transform.LayerNorm."),
          ("vocab_projector.", "cls.predictions.decoder."), ("pre_classifier.", "classifier.")]


def from_distilbert(tensors):
    """DistilBERT's tensors under the original BERT's names; its one token type adds nothing."""
    renamed = {}
    for key, tensor in tensors.items():
        for theirs, berts in DISTIL:
            key = key.replace(theirs, berts)
        renamed[key.removeprefix("bert.")] = tensor
    words = renamed.get("embeddings.word_embeddings.weight")
    if words is not None and words.dim() == 2:
        renamed["embeddings.token_type_embeddings.weight"] = torch.zeros(1, words.shape[1])
    return renamed


def to_hugging_face(state):
    """Our state dict under the original BERT's names, the fused qkv cut into its three parts."""
    renamed = {}
    for key, tensor in state.items():
        layer = re.match(r"layers\.(\d+)\.", key)
        prefix, rest = (f"bert.encoder.layer.{layer[1]}.", key[layer.end():]) if layer else ("", key)
        if rest.startswith("qkv."):
            for name, part in zip(QKV, tensor.chunk(3)):  # (3h, h) -> three of (h, h); biases (3h,) -> three of (h,)
                renamed[f"{prefix}attention.self.{name}.{rest[4:]}"] = part.contiguous()
        else:
            ours, theirs = next(pair for pair in NAMES if rest.startswith(pair[0]))
            renamed[prefix + theirs + rest[len(ours):]] = tensor.contiguous()
    return renamed


def from_hugging_face(tensors, folder):
    """The inverse. Also takes older checkpoints: LayerNorm's gamma and beta, names without `bert.`, copies of tied weights."""
    theirs = {}
    for key, tensor in (from_distilbert(tensors) if any(".q_lin." in key for key in tensors) else tensors).items():
        key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if key.startswith(("embeddings.", "encoder.", "pooler.")):
            key = "bert." + key
        if key.startswith(("cls.seq_relationship.", "classifier.", "qa_outputs.")) or key == "bert.embeddings.position_ids":
            continue  # heads of next sentences and of fine-tuning, and a constant 0, 1, 2, ...
        theirs[key] = tensor.float()
    # The decoder is tied: some files hold a second copy of its weight and bias. An untied decoder would be another model.
    for copy, original in (("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
                           ("cls.predictions.decoder.bias", "cls.predictions.bias")):
        if copy in theirs:
            duplicate = theirs.pop(copy)
            if not torch.equal(duplicate, theirs.setdefault(original, duplicate)):
                raise UserError(f"{folder}: {copy} differs from {original}, and this BERT ties the two")
    ours = {}
    for key, tensor in theirs.items():
        layer = re.match(r"bert\.encoder\.layer\.(\d+)\.", key)
        prefix, rest = (f"layers.{layer[1]}.", key[layer.end():]) if layer else ("", key)
        part = re.match(r"attention\.self\.(query|key|value)\.", rest)
        if part:
            ours.setdefault(f"{prefix}qkv.{rest[part.end():]}", [None] * 3)[QKV.index(part[1])] = tensor
        else:
            name = next((ours_ + rest[len(theirs_):] for ours_, theirs_ in NAMES if rest.startswith(theirs_)), rest)
            ours[prefix + name] = tensor
    for key, parts in ours.items():
        if isinstance(parts, list):
            if any(part is None or part.dim() == 0 or part.shape != parts[0].shape for part in parts):
                raise UserError(f"{folder} is damaged or not a BERT: {key} lacks its queries, keys or values")
            ours[key] = torch.cat(parts)
    return ours
