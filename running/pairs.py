"""Does a student fit its teacher? student and teacher are their Sizes (budget.Size).

A strategy asks here. What does not fit raises UserError, and the message names a student that does.
"""
import math

from program.cli import UserError


def same_heads(name, student, teacher):
    """Raises UserError unless both have the same number of heads."""
    if student.A != teacher.A:
        h = max(teacher.A, student.h - student.h % teacher.A)  # the next width that A' divides
        raise UserError(f"{name} compares attention head by head, and the student has {student.A} "
                        f"heads, the teacher {teacher.A}: give the student {teacher.A}, like "
                        f"--model {student.L}x{h}h{teacher.A}")


def teacher_layer(teacher, options, default=None):
    """The layer that MiniLM learns from: the teacher's last one. Where a teacher of v2 is deeper
    than 12 layers, it is the one 7/8 of the way up (the paper takes 21 of BERT-large's 24)."""
    last_or_upper_middle = teacher.L if teacher.L <= 12 else round(teacher.L * 21 / 24)
    layer = options.teacher_layer or default or last_or_upper_middle
    if layer > teacher.L:
        raise UserError(f"--teacher-layer {layer}: the teacher has {teacher.L} layers")
    return layer


def relation_heads(student, teacher, options):
    """The most relation heads that both widths can be cut into, each at least 16 wide in the
    teacher (the paper takes 48 for h = 768)."""
    common = math.gcd(student.h, teacher.h)
    fitting = [heads for heads in range(1, max(1, teacher.h // 16) + 1) if common % heads == 0]
    heads = options.relation_heads or fitting[-1]
    if common % heads:
        raise UserError(f"--relation-heads {heads} does not divide the widths {student.h} and "
                        f"{teacher.h}: one of {', '.join(map(str, fitting))} does")
    return heads
