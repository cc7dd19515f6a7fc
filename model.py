"""BERT from scratch: the encoder of Devlin et al. 2018 with its masked-language-model head.

    model = Bert.from_pretrained("bert-base-uncased")          # a folder or a hub id
    output = model(input_ids, attention_mask, token_type_ids)  # .last_hidden_state, .logits
    model.save_pretrained("my-bert")                           # transformers opens it

Post-LayerNorm, learned positions, exact GELU, decoder tied to the word embeddings: this is the
paper's model, and the one that transformers calls BertForMaskedLM. Read it from top to bottom: the
configuration, one layer, the whole, and how it goes into files and out of them.

Shapes: B sequences, T tokens, h hidden size, A heads, d = h / A, f feed-forward size, V vocabulary.
"""
import dataclasses
import json
import math
from pathlib import Path
from typing import NamedTuple, Optional

from files import checkpoints, disk
from program.cli import UserError

import torch
import torch.nn.functional as F
from torch import nn

from budget import Size
from distill import Depth


@dataclasses.dataclass
class BertConfig:
    """The sizes and constants of a BERT, under the names of `config.json`. Defaults: BERT-base."""
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
        return Size(self.num_hidden_layers, self.hidden_size, self.num_attention_heads,
                    self.intermediate_size)

    @classmethod
    def of(cls, size, **others):
        """The configuration of a `budget.Size`.

        The first weights have the deviation 0.02 sqrt(768 / h). That is BERT's 0.02 at h = 768; at
        other widths it keeps h * std^2, and so the size of a layer's output, the same."""
        return cls(**{"num_hidden_layers": size.L, "hidden_size": size.h,
                      "num_attention_heads": size.A, "intermediate_size": size.f,
                      "initializer_range": 0.02 * math.sqrt(768 / size.h), **others})


class Layer(nn.Module):
    """One encoder layer: self-attention, then feed-forward. Each is added to its input, and the sum
    is normalised (post-LayerNorm)."""

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

    def project(self, x):
        """x (B, T, h) -> (3, B, A, T, d): Q, K and V, each (B, A, T, d)."""
        B, T, h = x.shape
        A, d = self.heads, h // self.heads
        qkv = self.qkv(x).view(B, T, 3, A, d)  # (B, T, 3h) -> (B, T, 3, A, d)
        return qkv.permute(2, 0, 3, 1, 4)      # -> (3, B, A, T, d)

    def scores(self, Q, K):
        """S = Q K^T / sqrt(d) in each head: (B, A, T, d), (B, A, T, d) -> (B, A, T, T)."""
        return Q @ K.transpose(2, 3) / math.sqrt(Q.shape[3])

    def attend(self, Q, K, V, mask=None, S=None):
        """Attention in each head: three of (B, A, T, d) -> (B, T, h), all heads joined.

        mask (B, 1, 1, T) is True where a token may be attended to; None allows all. S: the scores,
        where they are computed already. Without them torch's fused kernel does both products,
        and keeps no T x T table. In training, dropout falls on the softmax."""
        # Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V
        dropout = self.attention_dropout if self.training else 0.0
        if S is None:
            a = F.scaled_dot_product_attention(Q, K, V, mask, dropout)
        else:
            S = S if mask is None else S.masked_fill(~mask, -math.inf)
            a = F.dropout(S.softmax(dim=3), dropout) @ V  # (B, A, T, T) @ (B, A, T, d)
        return a.transpose(1, 2).flatten(2)  # (B, A, T, d) -> (B, T, A, d) -> (B, T, h)

    def add_and_feed_forward(self, x, a):
        """The rest of the layer, from its input x and the attention a, both (B, T, h)."""
        # x <- LayerNorm(x + Dropout(a W_O))
        x = self.attention_norm(x + self.dropout(self.attention_output(a)))
        # x <- LayerNorm(x + Dropout(GELU(x W_1) W_2)), with the exact GELU(z) = z Phi(z)
        inner = F.gelu(self.feed_forward_in(x))           # (B, T, h) -> (B, T, f)
        return self.output_norm(x + self.dropout(self.feed_forward_out(inner)))

    def forward(self, x, mask=None, wants_scores=False):
        """x (B, T, h), mask as in `attend` -> (x (B, T, h), (Q, K, V) each (B, A, T, d), S).

        S is (B, A, T, T). It is None where it was not computed: nobody wants the scores, and the
        fused kernel is faster."""
        Q, K, V = self.project(x)
        # On a CPU the fused kernel is 2 to 10 times slower in bf16 (docs/LOG.md).
        fused_is_slow = Q.is_cpu and Q.dtype == torch.bfloat16
        S = self.scores(Q, K) if wants_scores or fused_is_slow else None
        a = self.attend(Q, K, V, mask, S)
        return self.add_and_feed_forward(x, a), (Q, K, V), S

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
        """(B, T) -> (B, T, h). Without token types every token is of type 0."""
        T = input_ids.shape[1]
        if token_type_ids is None:
            types = self.token_type_embeddings.weight[0]        # (h,), added everywhere
        else:
            types = self.token_type_embeddings(token_type_ids)  # (B, T, h)
        words = self.word_embeddings(input_ids)                 # (B, T, h)
        x = words + self.position_embeddings.weight[:T] + types
        return F.dropout(self.norm(x), self.hidden_dropout, self.training)


class MlmHead(nn.Module):
    """The head that predicts words. Its decoder E is the word embeddings' own matrix (tied)."""

    def __init__(self, config):
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x, E):
        """x (..., h), E (V, h) -> logits (..., V)."""
        # logits = LayerNorm(GELU(x W + b)) E^T + c
        return F.linear(self.norm(F.gelu(self.transform(x))), E, self.bias)


class Output(NamedTuple):
    """What a forward pass gives. A tensor is None, and a dictionary is empty, where the model lacks
    the part or where nobody asked for it."""
    last_hidden_state: Optional[torch.Tensor]   # (B, T, h)
    hidden_states: tuple                        # (B, T, h) each: embeddings, then each layer run
    logits: Optional[torch.Tensor]              # (B, T, V), or (N, V) at N chosen positions
    pooler_output: Optional[torch.Tensor]       # (B, h)
    scores: Optional[dict] = None               # {layer: (B, A, T, T)}: Q K^T / sqrt(d), no mask
    qkv: Optional[dict] = None                  # {layer: (q, k, v)}, each (B, T, h), heads joined


class Bert(nn.Module):
    """BERT with the parts that its checkpoint has: an MLM head (pretraining), a pooler
    (fine-tuning), both or neither."""

    def __init__(self, config, mlm_head=True, pooler=False):
        super().__init__()
        h = config.hidden_size
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.mlm_head = MlmHead(config) if mlm_head else None
        self.pooler = nn.Linear(h, h) if pooler else None
        self.initialise(self)

    @torch.no_grad()
    def initialise(self, part):
        """Draws the weights of `part` with mean 0 and deviation initializer_range (Devlin et al.'s
        code truncates them, too). Biases become 0, also the head's, and LayerNorm 1 and 0."""
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(0.0, self.config.initializer_range)
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1.0)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, *, positions=None,
                reads=None):
        """input_ids (B, T); attention_mask (B, T), 1 for tokens and 0 for padding; token_type_ids
        (B, T) -> Output.

        positions: (N,) indices into the B*T tokens at which the MLM head runs, so that logits are
        (N, V); None runs it everywhere. A training step reads 15% of the logits, and the head at
        every position would be its dearest part.
        reads: a `distill.Reads`, what a loss reads of this pass, and nothing else is computed. None
        computes all that the model has, without attention scores.
        Raises UserError where T is beyond the position table."""
        T, longest = input_ids.shape[1], self.config.max_position_embeddings
        if T > longest:
            raise UserError(f"a sequence of {T} tokens is longer than the model's position table "
                            f"of {longest}: shorten it")
        x = self.embeddings(input_ids, token_type_ids)
        # (B, T) -> (B, 1, 1, T): the same for all heads and all queries
        mask = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        hidden_states, scores, qkv = self.encode(x, mask, reads)
        last, logits, pooled = hidden_states[-1], None, None
        if self.mlm_head is not None and (reads is None or reads.logits):
            chosen = last
            if positions is not None:  # (B, T, h) -> (B T, h) -> (N, h)
                chosen = last.flatten(0, 1).index_select(0, positions)
            logits = self.mlm_head(chosen, self.embeddings.word_embeddings.weight)
        if self.pooler is not None and reads is None:
            pooled = torch.tanh(self.pooler(last[:, 0]))  # the hidden state of [CLS]
        return Output(last, hidden_states, logits, pooled, scores, qkv)

    def encode(self, x, mask, reads):
        """The layers, as far as they are read: x (B, T, h) -> (hidden_states, scores, qkv) as in
        Output. A layer that is left half way has None for its hidden state."""
        L = len(self.layers)
        depth = Depth(qkv=L, scores=L, whole=L) if reads is None else reads.depth(L)
        hidden_states, scores, qkv = [x], {}, {}
        for m, layer in enumerate(self.layers[:depth.qkv], start=1):
            wants_scores = reads is not None and m in reads.scores
            if m <= depth.whole:
                x, QKV, S = layer(x, mask, wants_scores)
            else:  # the loss reads nothing beyond this layer's scores, or its projections
                QKV = layer.project(x)
                S = layer.scores(*QKV[:2]) if m <= depth.scores else None
                x = None
            hidden_states.append(x)
            if wants_scores:
                scores[m] = S
            if reads is not None and m in reads.qkv:
                qkv[m] = tuple(part.transpose(1, 2).flatten(2) for part in QKV)  # -> (B, T, h)
        return tuple(hidden_states), scores, qkv

    @property
    def device(self):
        return self.embeddings.word_embeddings.weight.device

    def parameter_count(self):
        return sum(p.numel() for p in self.parameters())

    # ----------------------------------------------------------------------------------------------
    # Files, in Hugging Face's format (files/checkpoints.py)

    def save_pretrained(self, folder):
        """Writes `config.json` and `model.safetensors` into `folder`, each whole or not at all."""
        folder = Path(folder)
        disk.make_folder(folder)
        checkpoints.save_weights(folder / "model.safetensors", self.state_dict())
        architecture = "BertForMaskedLM" if self.mlm_head is not None else "BertModel"
        config = {"architectures": [architecture], "model_type": "bert",
                  **dataclasses.asdict(self.config), "hidden_act": "gelu",
                  "tie_word_embeddings": True, "torch_dtype": "float32"}
        disk.write_file(folder / "config.json", json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name, mlm_head=None):
        """A BERT from a folder or a hub id: in fp32, in evaluation mode, with the parts it has.

        mlm_head: None takes what is there and warns when there is no head; True demands one; False
        leaves it out. Raises UserError for anything that is not a BERT, or whose sizes are not
        those of its config."""
        folder = disk.fetch(name, ["config.json", *disk.WEIGHT_FILES])
        config = checkpoints.read_config(folder, BertConfig)
        tensors = checkpoints.read_weights(folder, mlm_head)
        has_head = checkpoints.check_head(name, tensors, mlm_head)
        with torch.device("meta"):  # shapes without memory
            model = cls(config, has_head, any(key.startswith("pooler.") for key in tensors))
        checkpoints.check_shapes(name, tensors, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        return model.requires_grad_(True).eval()
