"""BERT from scratch: the encoder of Devlin et al. 2018 with its masked-language-model head, in and out of Hugging Face's
format.

    model = Bert.from_pretrained("bert-base-uncased")         # a folder or a hub id; safetensors only
    output = model(input_ids, attention_mask, token_type_ids)  # .last_hidden_state (B, T, h), .logits (B, T, V)
    model.save_pretrained("my-bert")                           # opens in transformers' AutoModelForMaskedLM

Post-LayerNorm, learned positions, exact GELU, decoder tied to the word embeddings: the paper's model, and the one that
transformers calls BertForMaskedLM. Read it from top to bottom: configuration, one layer, the whole, in and out of files.

Shapes: B sequences, T tokens, h hidden size, A heads, d = h / A, f feed-forward size, V vocabulary.
"""
import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import NamedTuple, Optional

import disk  # before torch: it says how torch's threads wait

import torch
import torch.nn.functional as F
from torch import nn

from budget import Depth, Size
from cli import UserError
from huggingface import read_config, read_weights, to_hugging_face


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

    def forward(self, x, mask=None, stop="", scores=False):
        """x (B, T, h), mask (B, 1, 1, T), True where a token may be attended to, or None for everywhere ->
        (x (B, T, h), (q, k, v) each (B, T, h) with all heads joined, scores (B, A, T, T) if they are asked for).

        stop: after "qkv" or after "scores"; the x of a layer that stopped is None. Without `scores` attention is one
        fused kernel, which keeps no T x T table."""
        B, T, h = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, h // self.heads)  # (B, T, 3h) -> (B, T, 3, A, d)
        joined = qkv.flatten(3).unbind(2)                             # (B, T, 3, h) -> three of (B, T, h)
        if stop == "qkv":
            return None, joined, None
        q, k, v = qkv.permute(2, 0, 3, 1, 4)                          # three of (B, A, T, d)
        dropout = self.attention_dropout if self.training else 0.0
        # Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, in each head
        S = None
        if scores or (qkv.is_cpu and qkv.dtype == torch.bfloat16):        # on CPU the fused kernel is 2 to 10 times slower in bf16 (LOG.md)
            S = q @ k.transpose(2, 3) / math.sqrt(h // self.heads)    # (B, A, T, d) @ (B, A, d, T) -> (B, A, T, T)
            if stop == "scores":
                return None, joined, S
            seen = S if mask is None else S.masked_fill(~mask, -math.inf)
            a = F.dropout(seen.softmax(dim=3), dropout) @ v           # (B, A, T, T) @ (B, A, T, d) -> (B, A, T, d)
        else:
            a = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        a = a.transpose(1, 2).reshape(B, T, h)                        # (B, A, T, d) -> (B, T, A, d) -> (B, T, h)
        # x <- LayerNorm(x + Dropout(a W_O))
        x = self.attention_norm(x + self.dropout(self.attention_output(a)))
        # x <- LayerNorm(x + Dropout(GELU(x W_1) W_2)), with the exact GELU(z) = z Phi(z)
        return self.output_norm(x + self.dropout(self.feed_forward_out(F.gelu(self.feed_forward_in(x))))), joined, S

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
    """What a forward pass gives. Fields that the model has no part for, or that were not asked for, are None."""
    last_hidden_state: Optional[torch.Tensor]   # (B, T, h)
    hidden_states: tuple                        # L + 1 of (B, T, h): the embeddings' output, then each layer's
    logits: Optional[torch.Tensor]              # (B, T, V), or (N, V) at N chosen positions
    pooler_output: Optional[torch.Tensor]       # (B, h)
    scores: Optional[dict] = None               # {layer: (B, A, T, T)}: Q K^T / sqrt(d), before mask and softmax
    qkv: Optional[dict] = None                  # {layer: (q, k, v)}, each (B, T, h), all heads joined


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

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, *, positions=None, reads=None):
        """input_ids (B, T); attention_mask (B, T), 1 for tokens and 0 for padding; token_type_ids (B, T) -> Output.

        positions: (N,) indices into the B*T tokens at which the MLM head runs, logits (N, V); None: at all, (B, T, V).
        A training step reads 15% of the logits, and the head at every position would be its dearest part.
        reads: a `budget.Reads`, what a loss reads of this pass. Just that is computed: the pass ends in the deepest layer
        that is read, and attention scores appear in the layers that are asked for. None: all that the model has, no scores.
        Raises UserError where T is beyond the position table."""
        T, longest, L = input_ids.shape[1], self.config.max_position_embeddings, self.config.num_hidden_layers
        if T > longest:
            raise UserError(f"a sequence of {T} tokens is longer than the model's position table of {longest}: shorten it")
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
        depth = Depth(L, L, L) if reads is None else reads.depth(L)
        x = self.embeddings(input_ids, token_type_ids)
        hidden_states, scores, qkv = [x], {}, {}
        for m, layer in enumerate(self.layers[:depth.qkv], start=1):
            stop = "" if m <= depth.whole else "scores" if m <= depth.scores else "qkv"
            x, joined, S = layer(x, mask, stop, scores=reads is not None and m in reads.scores)
            hidden_states.append(x)
            if reads is not None:
                scores |= {m: S} if m in reads.scores else {}
                qkv |= {m: joined} if m in reads.qkv else {}
        logits = pooled = None
        if self.mlm_head is not None and (reads is None or reads.logits):
            chosen = x if positions is None else x.flatten(0, 1).index_select(0, positions)  # (B, T, h) -> (N, h)
            logits = self.mlm_head(chosen, self.embeddings.word_embeddings.weight)
        if self.pooler is not None and reads is None:
            pooled = torch.tanh(self.pooler(x[:, 0]))  # the hidden state of [CLS]
        return Output(x, tuple(hidden_states), logits, pooled, scores, qkv)

    @property
    def device(self):
        return self.embeddings.word_embeddings.weight.device

    def parameter_count(self):
        return sum(p.numel() for p in self.parameters())

    # -----------------------------------------------------------------------------------------------------------------
    # Files, in Hugging Face's format (huggingface.py).

    def save_pretrained(self, folder):
        """Writes `config.json` and `model.safetensors` into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        disk.save_tensors(folder / "model.safetensors", to_hugging_face(self.state_dict()))
        architecture = "BertForMaskedLM" if self.mlm_head is not None else "BertModel"
        config = {"architectures": [architecture], "model_type": "bert", **dataclasses.asdict(self.config),
                  "hidden_act": "gelu", "tie_word_embeddings": True, "torch_dtype": "float32"}
        disk.write_file(folder / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name, mlm_head=None):
        """A BERT from a folder or a hub id, in fp32 and evaluation mode, with the parts that its file holds.

        mlm_head: None takes what is there and warns when there is no head; True demands one; False leaves it out.
        Raises UserError for anything that is not a BERT in safetensors, or whose sizes are not those of its config."""
        folder = disk.fetch(name, ["config.json", "model.safetensors"])
        config = read_config(folder, BertConfig)
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
