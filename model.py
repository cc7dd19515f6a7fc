"""BERT from scratch: the encoder of Devlin et al. 2018 with its masked-language-model head, in and out of Hugging Face's
format.

    model = Bert.from_pretrained("bert-base-uncased")         # a folder or a hub id; safetensors only
    output = model(input_ids, attention_mask, token_type_ids)  # .last_hidden_state (B, T, h), .logits (B, T, V)
    model.save_pretrained("my-bert")                           # opens in transformers' AutoModelForMaskedLM

Post-LayerNorm, learned positions, exact GELU, decoder tied to the word embeddings: the paper's model, and the one that
transformers calls BertForMaskedLM. Read it from top to bottom: configuration, one layer, the whole, the file format.

Shapes: B sequences, T tokens, h hidden size, A heads, d = h / A, f feed-forward size, V vocabulary.
"""
import dataclasses
import json
import math
import re
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import runs  # before torch: it says how torch's threads wait

import torch
import torch.nn.functional as F
from torch import nn

from budget import Size
from cli import UserError


@dataclasses.dataclass
class BertConfig:
    """The sizes and constants of a BERT, under the names that `config.json` gives them. Defaults: BERT-base."""
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0

    @property
    def size(self):
        return Size(self.num_hidden_layers, self.hidden_size, self.num_attention_heads, self.intermediate_size)

    @classmethod
    def of(cls, size, **others):
        """The configuration of a `budget.Size`. Initial weights are N(0, 0.02 sqrt(768 / h)): BERT's 0.02 at h = 768,
        and at other widths what keeps h * std^2, and so the size of a layer's output, the same."""
        L, h, A, f = size
        return cls(**{"num_hidden_layers": L, "hidden_size": h, "num_attention_heads": A, "intermediate_size": f,
                      "initializer_range": 0.02 * math.sqrt(768 / h), **others})


class Layer(nn.Module):
    """One encoder layer: self-attention and feed-forward, each added to its input and normalised (post-LayerNorm)."""

    def __init__(self, config):
        super().__init__()
        h, f, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.attention_dropout = config.attention_probs_dropout_prob
        self.hidden_dropout = config.hidden_dropout_prob
        self.qkv = nn.Linear(h, 3 * h)  # queries, keys and values of all heads in one product
        self.attention_output = nn.Linear(h, h)
        self.attention_norm = nn.LayerNorm(h, eps=eps)
        self.feed_forward_in = nn.Linear(h, f)
        self.feed_forward_out = nn.Linear(f, h)
        self.output_norm = nn.LayerNorm(h, eps=eps)

    def forward(self, x, mask=None):
        """(B, T, h) -> (B, T, h). mask: (B, 1, 1, T), True where a token may be attended to, or None for everywhere."""
        B, T, h = x.shape
        # Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, in each head
        qkv = self.qkv(x).view(B, T, 3, self.heads, h // self.heads)  # (B, T, 3h) -> (B, T, 3, A, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                          # three of (B, A, T, d)
        a = F.scaled_dot_product_attention(q, k, v, mask, self.attention_dropout if self.training else 0.0)
        a = a.transpose(1, 2).reshape(B, T, h)                        # (B, A, T, d) -> (B, T, A, d) -> (B, T, h)
        # x <- LayerNorm(x + Dropout(a W_O))
        x = self.attention_norm(x + self.dropout(self.attention_output(a)))
        # x <- LayerNorm(x + Dropout(GELU(x W_1) W_2)), with the exact GELU(z) = z Phi(z)
        return self.output_norm(x + self.dropout(self.feed_forward_out(F.gelu(self.feed_forward_in(x)))))

    def dropout(self, x):
        return F.dropout(x, self.hidden_dropout, self.training)


class Embeddings(nn.Module):
    """Word + position + token type, normalised."""

    def __init__(self, config):
        super().__init__()
        h = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, h)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, h)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, h)
        self.norm = nn.LayerNorm(h, eps=config.layer_norm_eps)
        self.hidden_dropout = config.hidden_dropout_prob

    def forward(self, input_ids, token_type_ids=None):
        """(B, T) -> (B, T, h)"""
        T = input_ids.shape[1]
        # Without token types every token is of type 0: one row, added everywhere.
        types = self.token_type_embeddings.weight[0] if token_type_ids is None else self.token_type_embeddings(token_type_ids)
        x = self.word_embeddings(input_ids) + self.position_embeddings.weight[:T] + types
        return F.dropout(self.norm(x), self.hidden_dropout, self.training)


class MlmHead(nn.Module):
    """The head that predicts words: logits = LayerNorm(GELU(x W + b)) E^T + c, with E the word embeddings (tied)."""

    def __init__(self, config):
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x, E):
        """(..., h), (V, h) -> (..., V)"""
        return F.linear(self.norm(F.gelu(self.transform(x))), E, self.bias)


class Output(NamedTuple):
    """What a forward pass gives. Fields that the model has no part for are None."""
    last_hidden_state: torch.Tensor         # (B, T, h)
    hidden_states: tuple                    # L + 1 of (B, T, h): the embeddings' output, then each layer's
    logits: Optional[torch.Tensor]          # (B, T, V), or (N, V) at N chosen positions
    pooler_output: Optional[torch.Tensor]   # (B, h)


class Bert(nn.Module):
    """BERT with the parts that its checkpoint has: an MLM head (pretraining), a pooler (fine-tuning), both or neither."""

    def __init__(self, config, mlm_head=True, pooler=False):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.mlm_head = MlmHead(config) if mlm_head else None
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None
        self.initialise(self)

    @torch.no_grad()
    def initialise(self, part):
        """Weights of `part` from N(0, initializer_range), biases 0, LayerNorm 1 and 0 (Devlin et al.'s code)."""
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(0.0, self.config.initializer_range)
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, *, positions=None):
        """input_ids (B, T); attention_mask (B, T), 1 for tokens and 0 for padding; token_type_ids (B, T) -> Output.

        positions: (N,) indices into the B*T tokens at which the MLM head runs, logits (N, V); None: at all, (B, T, V).
        A training step reads 15% of the logits, and the head at every position would be its dearest part.
        Raises UserError where T is beyond the position table."""
        x, hidden_states = self.encode(input_ids, attention_mask, token_type_ids)
        logits = pooled = None
        if self.mlm_head is not None:
            chosen = x if positions is None else x.flatten(0, 1).index_select(0, positions)  # (B, T, h) -> (N, h)
            logits = self.mlm_head(chosen, self.embeddings.word_embeddings.weight)
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(x[:, 0]))  # the hidden state of [CLS]
        return Output(x, hidden_states, logits, pooled)

    def encode(self, input_ids, attention_mask=None, token_type_ids=None):
        """The encoder alone: the last hidden state (B, T, h) and all L + 1 of them."""
        T, longest = input_ids.shape[1], self.config.max_position_embeddings
        if T > longest:
            raise UserError(f"a sequence of {T} tokens is longer than the model's position table of {longest}: shorten it")
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
        x = self.embeddings(input_ids, token_type_ids)
        hidden_states = [x]
        for layer in self.layers:
            x = layer(x, mask)
            hidden_states.append(x)
        return x, tuple(hidden_states)

    @property
    def device(self):
        return self.embeddings.word_embeddings.weight.device

    def parameter_count(self):
        return sum(p.numel() for p in self.parameters())

    # -----------------------------------------------------------------------------------------------------------------
    # Hugging Face's format: config.json and model.safetensors, with the names of the original BERT.

    def save_pretrained(self, folder):
        """Writes `config.json` and `model.safetensors` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        runs.save_tensors(folder / "model.safetensors", to_hugging_face(self.state_dict()))
        architecture = "BertForMaskedLM" if self.mlm_head is not None else "BertModel"
        config = {"architectures": [architecture], "model_type": "bert", **dataclasses.asdict(self.config),
                  "hidden_act": "gelu", "tie_word_embeddings": True, "torch_dtype": "float32"}
        runs.write_file(folder / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name, mlm_head=None):
        """A BERT from a folder or a hub id, in fp32 and evaluation mode, with the parts that its file holds.

        mlm_head: None takes what is there and warns when there is no head; True demands one; False leaves it out.
        Raises UserError for anything that is not a BERT in safetensors, or whose sizes are not those of its config."""
        folder = runs.fetch(name, ["config.json", "model.safetensors"])
        config = read_config(folder)
        tensors = read_weights(folder)
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        has_head = any(key.startswith("mlm_head.") for key in shapes)
        if mlm_head and not has_head:
            raise UserError(f"{name} has no masked-language-model head (no cls.predictions.* in its model.safetensors): "
                            f"use a checkpoint that was saved with one, like a BertForMaskedLM")
        if mlm_head is None and not has_head:
            warnings.warn(f"{name} has no masked-language-model head: it gives hidden states, and no logits", stacklevel=2)
        # Compare with the sizes that the file really has before anything is built: a config of absurd sizes costs nothing.
        layers = len({key.split(".")[1] for key in shapes if key.startswith("layers.")})
        found = {"num_hidden_layers": layers,
                 **{size: (shapes.get(key) or (0,))[0] for size, key in (
                     ("hidden_size", "embeddings.norm.weight"), ("vocab_size", "embeddings.word_embeddings.weight"),
                     ("max_position_embeddings", "embeddings.position_embeddings.weight"),
                     ("type_vocab_size", "embeddings.token_type_embeddings.weight"),
                     ("intermediate_size", "layers.0.feed_forward_in.weight"))}}
        wrong = [f"{key} is {getattr(config, key):,} in config.json and {n:,} in model.safetensors"
                 for key, n in found.items() if getattr(config, key) != n]
        if wrong:
            raise UserError(f"{name} is damaged or not a BERT: {'; '.join(wrong)}")
        with torch.device("meta"):
            model = cls(config, mlm_head=has_head and mlm_head is not False, pooler="pooler.weight" in shapes)
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        for key in sorted(expected.keys() | shapes.keys()):
            if key.startswith("mlm_head.") and model.mlm_head is None:
                continue
            if shapes.get(key) != expected.get(key):
                raise UserError(f"{name} is damaged or not a BERT: the weight for {key} has shape {shapes.get(key, 'missing')}, "
                                f"expected {expected.get(key, 'none of that name')}")
        model.load_state_dict({key: tensors[key] for key in expected}, assign=True)
        return model.requires_grad_(True).eval()


def read_config(folder):
    """`config.json` as a BertConfig. Raises UserError where it is no JSON, no BERT, or a BERT that this one is not."""
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert isinstance(raw, dict)
    except FileNotFoundError:
        raise UserError(f"{folder} has no config.json: it is not a model's folder") from None
    except (ValueError, AssertionError, RecursionError):
        raise UserError(f"{folder}/config.json is damaged: it is not a JSON object") from None
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
    tensors, _ = runs.load_tensors(path)
    return from_hugging_face(tensors, folder)


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
    for key, tensor in tensors.items():
        key = key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if key.startswith(("embeddings.", "encoder.", "pooler.")):
            key = "bert." + key
        if key.startswith("cls.seq_relationship.") or key == "bert.embeddings.position_ids":
            continue  # the next-sentence head, and a constant 0, 1, 2, ...
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
