"""The losses, written by hand, and the strategies that are made of them.

First come the declarations: what a loss reads of a model. The models compute just that (model.py),
and the budget charges just that (budget.py). Then come the losses: tensors in, a scalar out, and no
model inside. At the end there is one function for each strategy, which declares what its loss reads
of the student and of the teacher.

Shapes: B sequences, T tokens, N masked positions of the whole batch, V vocabulary, h hidden size,
A heads, d = h / A, and R relation heads of width h / R. A prime marks the teacher's (h', A', H');
in the code it is `_T`, as in H_T. `X^T` in a comment is a transpose. Losses that compare
distributions are in nats. Tensors may be bf16: the losses compute in fp32, and leave float64 alone.

A strategy of your own is a function and a line in STRATEGIES. It is then priced (`python budget.py
--model 6x768 --teacher 12x768`), trained (`python train.py --strategy last-layer --teacher ...`)
and compared like the others:

    def last_layer(student, teacher, options):
        def terms(s, t, labels, project):
            H, H_T = project(s.hidden_states[-1]), t.hidden_states[-1]
            return {"last-layer": (H - H_T).square().mean()}
        return Lesson(Reads(hidden=(student.L,)), Reads(hidden=(teacher.L,)),
                      width=width_between(student, teacher), masked=False, terms=terms)

    STRATEGIES["last-layer"] = last_layer

This file does not import torch: tensors bring their methods along, and the budget reads the
declarations without it.
"""
import math
from typing import Callable, NamedTuple, Optional

from program.cli import UserError
from running.pairs import relation_heads, same_heads, teacher_layer

# ---- Declarations: what a loss reads -------------------------------------------------------------

class Depth(NamedTuple):
    """How many layers a forward pass runs, and how far it goes in the last one.

    The first `qkv` layers run as far as their projections, the first `scores` as far as Q K^T, and
    the first `whole` to their end. The three differ by one at most, since only the last layer is
    ever left half way."""
    qkv: int
    scores: int
    whole: int


class Reads(NamedTuple):
    """What a loss reads of one model's forward pass. Layer 0 is the embeddings' output."""
    logits: bool = False   # the MLM head's logits at the masked positions
    hidden: tuple = ()     # the layers whose output (B, T, h) is read
    scores: tuple = ()     # the layers whose attention scores (B, A, T, T) are read
    qkv: tuple = ()        # the layers whose queries, keys and values (B, T, h) are read
    relations: int = 0     # T x T products made of each of those layers: Q Q^T, K K^T, V V^T are 3

    def depth(self, L):
        """How far a model of L layers must run."""
        deepest = max((L if self.logits else 0, *self.hidden, *self.scores, *self.qkv))
        to_the_end = self.logits or deepest in self.hidden
        whole = deepest if to_the_end else max(0, deepest - 1)
        scores = deepest if deepest in self.scores else whole
        return Depth(deepest, scores, whole)


MLM = Reads(logits=True)


class Lesson(NamedTuple):
    """What a training step of a strategy computes.

    `terms(s, t, labels, project)` takes the two models' outputs (model.Output), the labels (N,) of
    the masked words (-100 where there is none) and the projection of hidden states to the teacher's
    width (the identity where the widths are equal). It gives {name: scalar}, and the sum of the
    scalars is the loss. "mlm" is a mean over the labels, and every other term one over the rows, or
    over all N positions. The bill does not need it."""
    student: Reads = MLM              # what the loss reads of the student
    teacher: Optional[Reads] = None   # and of the teacher, where there is one
    width: Optional[int] = None       # each hidden state that is read is projected to this width
    masked: bool = True               # True: both models read the masked text; False: the unmasked
    whole: bool = False               # charged for both passes whole, with both heads
    terms: Optional[Callable] = None
    options: tuple = ()               # the fields of Options that this strategy uses

    def charged(self):
        """(Reads of the student, Reads of the teacher or None) that the bill charges: those of the
        loss; or, where `whole` is set, both passes to their end with their heads, as the paper's
        released code runs them whatever its loss reads."""
        if not self.whole:
            return self.student, self.teacher
        return self.student._replace(logits=True), self.teacher._replace(logits=True)


# ---- Losses --------------------------------------------------------------------------------------

def to_fp32(x):
    """bf16 and fp16 become fp32; fp32 and float64 stay as they are."""
    return x.float() if x.element_size() < 4 else x


def kl(log_P, z_Q):
    """KL(P || Q) of distributions over the last axis: (..., V), (..., V) -> (...).

    P is given as its logarithms, and Q as logits."""
    # KL(P || Q) = sum_v P_v (log P_v - log Q_v)
    return (log_P.exp() * (log_P - z_Q.log_softmax(dim=-1))).sum(dim=-1)


def mlm_loss(logits, labels):
    """Masked language modelling (Devlin et al. 2018, section 3.1): logits (N, V), labels (N,)
    -> scalar, the mean over the masked positions.

    Positions with a negative label (such as -100) are ignored. If no position has a label, the
    loss is 0."""
    z = to_fp32(logits)
    has_label = labels >= 0
    y = labels.clamp(min=0)
    # L = 1/M sum_n -log softmax(z_n)[y_n] = 1/M sum_n (log sum_v exp z_nv - z_n[y_n])
    # over the M positions that have a label
    z_y = z.gather(1, y[:, None]).squeeze(1)                 # (N, V) -> (N,)
    loss = (z.logsumexp(dim=1) - z_y) * has_label            # (N,)
    return loss.sum() / has_label.sum().clamp(min=1)


def kd_loss(student_logits, teacher_logits, temperature=1.0):
    """Knowledge distillation (Hinton et al. 2015, section 2): logits (N, V), (N, V) -> scalar.

    The cross-entropy with the teacher's distribution is summed over the vocabulary and averaged
    over the positions. The gradient of softened distributions shrinks as 1/t^2, and the factor t^2
    undoes this. The least value, where the student equals the teacher, is t^2 times the teacher's
    entropy."""
    z_S, z_T, t = to_fp32(student_logits), to_fp32(teacher_logits), temperature
    # L = t^2 1/N sum_n sum_v -softmax(z_T / t)_nv log softmax(z_S / t)_nv
    P_T = (z_T / t).softmax(dim=1)
    cross_entropy = -(P_T * (z_S / t).log_softmax(dim=1)).sum(dim=1)  # (N, V) -> (N,)
    return t ** 2 * cross_entropy.mean()


def kd_released_loss(student_logits, teacher_logits):
    """The loss in the code that Bui et al. released: `kd_loss` at t = 1, divided by V.

    Their mean is over positions and vocabulary. With V = 30,522 little is left of the term: the
    student pays for a teacher and does masked language modelling."""
    return kd_loss(student_logits, teacher_logits) / student_logits.shape[1]


def tinybert_loss(student_hidden, teacher_hidden, student_scores, teacher_scores):
    """TinyBERT (Jiao et al. 2020, equations 7 to 9): lists of (B, T, h') and of (B, A, T, T)
    -> scalar, the sum of the mean squared errors of mapped pairs.

    The hidden states include the embeddings' output, and the student's are already projected to
    the teacher's width. The attention scores are those before the softmax."""
    # loss = sum_{m=0..L} MSE(H_m W, H'_g(m)) + sum_{m=1..L} MSE(S_m, S'_g(m))
    # with S = Q K^T / sqrt(d) and g(m) = m L' / L
    pairs = [*zip(student_hidden, teacher_hidden, strict=True),
             *zip(student_scores, teacher_scores, strict=True)]
    return sum((to_fp32(own) - to_fp32(theirs)).square().mean() for own, theirs in pairs)


def relation(x):
    """X X^T / sqrt(h/R) in each head: (B, R, T, h/R) -> (B, R, T, T). The softmax comes later."""
    return to_fp32(x @ x.transpose(2, 3)) / math.sqrt(x.shape[3])


def split(x, heads):
    """Cuts the joined heads into R relation heads: (B, T, h) -> (B, R, T, h / R)."""
    # (B, T, h) -> (B, T, R, h/R) -> (B, R, T, h/R)
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def relations_loss(student, teacher):
    """KL of the relations among positions, teacher || student: n tensors of (B, R, T, h/R) and n of
    (B, R, T, h'/R) -> scalar, the mean over heads, positions, sequences and the n relations."""
    # L = 1/n sum_i 1/(B R T) sum_brt KL(softmax(X'_i X'_i^T / sqrt(h'/R))_brt
    #                                    || softmax(X_i X_i^T / sqrt(h/R))_brt)
    losses = [kl(relation(X_T).log_softmax(dim=3), relation(X)).mean()  # teacher || student
              for X, X_T in zip(student, teacher, strict=True)]
    return sum(losses) / len(losses)


def minilm_loss(student_qkv, teacher_qkv, relation_heads):
    """MiniLM v2 (Wang et al. 2021, equations 5 to 8): (q, k, v) of (B, T, h) and of (B, T, h'),
    all heads joined -> scalar.

    The heads are joined and cut again into `relation_heads`, so that student and teacher can share
    them whatever their own numbers are. The paper weighs nine relations by alpha_ij; it trains with
    QQ, KK and VV at 1/3 each, hence the mean of three."""
    return relations_loss([split(x, relation_heads) for x in student_qkv],
                          [split(x, relation_heads) for x in teacher_qkv])


def minilm_released_loss(student_qkv, teacher_qkv, student_heads, teacher_heads):
    """The loss in the code that Bui et al. released: there are as many relation heads as the
    teacher has heads, and the student's (B, A, T, d) is reshaped to (B, A', T, h / A').

    Where A and A' differ the reshape mixes positions with heads. The three relations are summed,
    not averaged: where A and A' are equal this is 3 times `minilm_loss`."""
    B, T, h = student_qkv[0].shape
    mixed = [split(x, student_heads).reshape(B, teacher_heads, T, h // teacher_heads)
             for x in student_qkv]
    return 3 * relations_loss(mixed, [split(x, teacher_heads) for x in teacher_qkv])


def minilm_v1_loss(student_scores, teacher_scores, student_values, teacher_values):
    """MiniLM v1 (Wang et al. 2020, equations 3 to 6): scores (B, A, T, T) of both, values (B, T, h)
    and (B, T, h') -> scalar. A is the same in both models."""
    A = student_scores.shape[1]
    # L_AT = 1/(B A T) sum_bat KL(softmax(S')_bat || softmax(S)_bat)
    # L_VR = the same of V V^T / sqrt(d), and L = L_AT + L_VR
    log_P_T = to_fp32(teacher_scores).log_softmax(dim=3)
    L_AT = kl(log_P_T, to_fp32(student_scores)).mean()
    L_VR = relations_loss([split(student_values, A)], [split(teacher_values, A)])
    return L_AT + L_VR


# ---- Strategies, all (student's Size, teacher's Size, Options) -> Lesson -------------------------

class Options(NamedTuple):
    """What may be chosen for some strategies; None stands for the strategy's own choice."""
    temperature: float = 1.0
    relation_heads: Optional[int] = None
    teacher_layer: Optional[int] = None


def lesson(name, student, teacher=None, options=Options()):
    """The Lesson of the strategy called `name`, for the Sizes of a student and of a teacher.

    Raises UserError where there is no teacher, where the strategy does not use one of the options,
    or where the pair does not fit; the message then names a student that fits."""
    if name != "scratch" and teacher is None:
        raise UserError(f"{name} learns from a teacher: say which with --teacher, a run's folder, "
                        "a BERT's folder or a hub id")
    chosen = STRATEGIES[name](student, teacher, options)
    for option, value in options._asdict().items():
        if value != Options._field_defaults[option] and option not in chosen.options:
            raise UserError(f"{name} does not use --{option.replace('_', '-')}: remove it")
    return chosen


def scratch(student, teacher, options):
    """Masked language modelling, without a teacher."""
    def terms(s, t, labels, project):
        return {"mlm": mlm_loss(s.logits, labels)}
    return Lesson(student=MLM, terms=terms)


def kd(student, teacher, options):
    """Vanilla KD: the MLM loss and the KD loss, both at the masked positions.

    A block with fewer than k ordinary words fills up the k with visible [CLS] and [SEP], which have
    no label. At those the student learns from the teacher alone."""
    def terms(s, t, labels, project):
        return {"mlm": mlm_loss(s.logits, labels),
                "kd": kd_loss(s.logits, t.logits, options.temperature)}
    return Lesson(student=MLM, teacher=MLM, terms=terms, options=("temperature",))


def kd_released(student, teacher, options):
    """Vanilla KD as Bui et al. released it."""
    def terms(s, t, labels, project):
        # Released: the KD term is averaged over the vocabulary, too.
        return {"mlm": mlm_loss(s.logits, labels), "kd": kd_released_loss(s.logits, t.logits)}
    return Lesson(student=MLM, teacher=MLM, terms=terms)


def tinybert(student, teacher, options):
    """TinyBERT's general distillation: student layer m learns from teacher layer
    g(m) = m L' / L, and the embeddings' output (layer 0) from the teacher's.

    Both read the whole text, since their code masks none, and there is no MLM term. Where the
    widths differ one matrix serves all layers, as in their code; the paper writes W_h for the
    layers and W_e for the embeddings."""
    same_heads("tinybert", student, teacher)
    if teacher.L % student.L:
        fitting = ", ".join(str(L) for L in range(1, teacher.L + 1) if teacher.L % L == 0)
        raise UserError(f"tinybert maps each of the student's {student.L} layers to every n-th of "
                        f"the teacher's {teacher.L}, which is no whole n: give the student one of "
                        f"{fitting} layers (--model)")
    layers = tuple(range(1, student.L + 1))
    g = tuple(m * teacher.L // student.L for m in layers)

    def terms(s, t, labels, project):
        H = [project(s.hidden_states[m]) for m in (0, *layers)]
        H_T = [t.hidden_states[m] for m in (0, *g)]
        S, S_T = [s.scores[m] for m in layers], [t.scores[m] for m in g]
        return {"tinybert": tinybert_loss(H, H_T, S, S_T)}
    return Lesson(Reads(hidden=(0, *layers), scores=layers), Reads(hidden=(0, *g), scores=g),
                  width_between(student, teacher), masked=False, terms=terms)


def tinybert_released(student, teacher, options):
    """TinyBERT as Bui et al. released it. As with all their methods, both models read the masked
    text, and run to the end with their heads."""
    same_heads("tinybert-released", student, teacher)
    L, L_T = student.L, teacher.L

    def terms(s, t, labels, project):
        # Released: only the last layers are compared, and the term that is called the embeddings'
        # compares the first layers' scores.
        H, H_T = [project(s.hidden_states[L])], [t.hidden_states[L_T]]
        S, S_T = [s.scores[1], s.scores[L]], [t.scores[1], t.scores[L_T]]
        return {"tinybert": tinybert_loss(H, H_T, S, S_T)}
    return Lesson(Reads(hidden=(L,), scores=unique(1, L)),
                  Reads(hidden=(L_T,), scores=unique(1, L_T)),
                  width_between(student, teacher), whole=True, terms=terms)


def minilm(student, teacher, options):
    """MiniLM v2: the student's last layer learns the relations of one teacher layer, the last one
    or, where the teacher is deeper than 12 layers, the one 7/8 of the way up.

    Both read the whole text, and there is no MLM term. The passes end at the queries, keys and
    values of the two layers: the output projection and the feed-forward of the student's last layer
    are neither run nor trained (`--mlm-finish` trains them)."""
    heads, layer = relation_heads(student, teacher, options), teacher_layer(teacher, options)

    def terms(s, t, labels, project):
        return {"minilm": minilm_loss(s.qkv[student.L], t.qkv[layer], heads)}
    return Lesson(Reads(qkv=(student.L,), relations=3), Reads(qkv=(layer,), relations=3),
                  masked=False, terms=terms, options=("relation_heads", "teacher_layer"))


def minilm_released(student, teacher, options):
    """MiniLM v2 as Bui et al. released it: the last layers of both models, which read the masked
    text and run to the end with their heads."""
    L_T, A, A_T = teacher.L, student.A, teacher.A
    if student.h % A_T:
        raise UserError(f"minilm-released cuts the student's width {student.h} into the teacher's "
                        f"{A_T} heads, and it does not divide: choose another --model, or "
                        "--strategy minilm")

    def terms(s, t, labels, project):
        # Released: the student's heads are reshaped to the teacher's, not joined and cut.
        return {"minilm": minilm_released_loss(s.qkv[student.L], t.qkv[L_T], A, A_T)}
    return Lesson(Reads(qkv=(student.L,), relations=3), Reads(qkv=(L_T,), relations=3),
                  whole=True, terms=terms)


def minilm_v1(student, teacher, options):
    """MiniLM v1: attention distributions and value relations of the last layers."""
    same_heads("minilm-v1", student, teacher)
    L, layer = student.L, teacher_layer(teacher, options, default=teacher.L)

    def terms(s, t, labels, project):
        loss = minilm_v1_loss(s.scores[L], t.scores[layer], s.qkv[L][2], t.qkv[layer][2])
        return {"minilm": loss}
    return Lesson(Reads(scores=(L,), qkv=(L,), relations=1),
                  Reads(scores=(layer,), qkv=(layer,), relations=1),
                  masked=False, terms=terms, options=("teacher_layer",))


STRATEGIES = {"scratch": scratch, "kd": kd, "tinybert": tinybert, "minilm": minilm,
              "minilm-v1": minilm_v1, "kd-released": kd_released,
              "tinybert-released": tinybert_released, "minilm-released": minilm_released}


# What the strategies ask about a pair


def unique(*layers):
    """The layers without repetition, in their order."""
    return tuple(dict.fromkeys(layers))


def width_between(student, teacher):
    """The width to which the student's hidden states are projected; None where it is theirs."""
    return teacher.h if teacher.h != student.h else None
