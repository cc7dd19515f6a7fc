"""Made-up comparisons, of which the tests know what a report has to say.

    study, outcomes = make_study(folder)            # what compare.findings takes
    folder = hand_in(folder, "ann", {("kd", 7): 0.625})  # what --collect takes
"""
from pathlib import Path
from types import SimpleNamespace

from files import disk

import glue
from budget import size
from reporting import cells

FIXED = {"model": "2x128", "teacher": "None", "head_teacher": "None", "teacher_model": "4x128",
         "teacher_flops": "3000000000000", "data": "stories", "glue_grid": "quick", "tasks": "rte",
         "glue_seeds": "1", "lr": "None", "train_options": "", "distil_options": "",
         "glue_options": ""}


def run_record(strategy, seed):
    """What train.py leaves in run.json of a student at 1e12 FLOPs."""
    settings = {"strategy": strategy, "flops_budget": 10 ** 12, "unique_tokens": None, "seed": seed,
                "model": "2x128", "lr": 1e-3, "seq_len": 32, "batch_size": 32,
                "betas": [0.9, 0.98], "dtype": "fp32"}
    bill = {"student_forward": 1, "student_backward": 2, "loss": 0,
            "teacher_forward": 0 if strategy == "scratch" else 2}
    return {"finished": True, "val_loss": 2.0, "unigram_loss": 4.0, "neighbour_loss": 1.3,
            "tokens": 10 ** 6, "epochs": 0.0, "seconds": 9.0, "flops_spent": 10 ** 12 - 5,
            "bill": bill, "machine": "m", "threads": 1, "settings": settings,
            "versions": {"python": "3.11.7", "torch": "2.13.0"}}


def fine_tunings(task, accuracy, seed=0):
    """What glue.py leaves in glue.json, on another machine, of the cells of the quick grid."""
    grid = glue.GRIDS["quick"]
    cell = {"task": "rte", "epochs": grid["epochs"], "seed": seed, "seq_len": 128, "pool": "cls",
            "model_sha256": "0" * 16, "data": "elsewhere", "dtype": "bf16", "device": "cuda",
            "examples_sha256": task.fingerprint, "seconds": 1.0,
            "scores": {"dev": {"accuracy": accuracy}}}
    width = 768 / 128 if grid.get("by_width") else 1
    return {"cells": [{**cell, "lr": lr * width, "batch_size": batch_size}
                      for lr in grid["lr"] for batch_size in grid["batch_size"]]}


def hand_in(folder, name, students, **fixed):
    """Makes the folder of a comparison without weights, and returns its path. students: {(strategy,
    seed): accuracy on the development set}; fixed: other entries of compare.json."""
    rte = folder / "glue" / "RTE"
    rte.mkdir(parents=True, exist_ok=True)
    rows = [f"{i}\tmia had a hat.\tleo had a hat.\t{('not_entailment', 'entailment')[i % 2]}\n"
            for i in range(8)]
    for part in ("train", "dev"):
        (rte / f"{part}.tsv").write_text("index\tsentence1\tsentence2\tlabel\n" + "".join(rows))
    fixed = {**FIXED, "glue_data": str(folder / "glue"), **fixed}
    task, = cells.tasks_of(fixed["glue_data"], "rte")
    for (strategy, seed), accuracy in students.items():
        cell = folder / name / "cells" / f"{strategy}-1.00e12-all-seed{seed}"
        cell.mkdir(parents=True)
        disk.write_json(cell / "run.json", run_record(strategy, seed))
        disk.write_json(cell / "glue.json", fine_tunings(task, accuracy))
    disk.write_json(folder / name / "compare.json", fixed)
    return str(folder / name)


def outcome_of(strategy, C, seed, score):
    """What a cell left behind whose student has this score, from 0 to 1."""
    record = {**run_record(strategy, seed), "val_loss": 2.0 - score, "flops_spent": C - 5}
    result = {"score": {"dev": [0.0, None], "test": [score, None]}, "seeds": 1,
              "majority": {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.5}},
              "metrics": {"test": {"accuracy": [score, None]}}, "seconds": 2.0}
    return {"record": record, "results": {"entailment": result}}


def make_study(folder, gains=None, seeds=3, budgets=(10 ** 12, 10 ** 13), amounts=(None, 20000)):
    """(study, outcomes) of a comparison on two data settings. From scratch students have 40 and 60
    points at the two budgets, each seed 3 more than the one before.

    gains: {strategy: its points more than scratch, for each budget one number, or one for each
    seed}. Without it KD has 10.0, 10.1 and 10.2 more at the smaller budget, and 0 at the larger."""
    gains = gains or {"kd": ((10.0, 10.1, 10.2), 0)}
    strategies = ("scratch", *gains)
    study = SimpleNamespace(
        strategies=strategies, budgets=tuple(budgets), unique_tokens=tuple(amounts),
        seed_numbers=tuple(range(seeds)), out=folder, model=size("2x128"), teacher=None,
        teacher_model=size("4x128"), teacher_flops=10 ** 14, data="stories", tasks="entailment",
        rates=dict.fromkeys(strategies))
    outcomes = {}
    for unique in amounts:
        for i, C in enumerate(budgets):
            for seed in range(seeds):
                for strategy in strategies:
                    gain = gains[strategy][i] if strategy != "scratch" else 0
                    gain = gain[seed] if isinstance(gain, tuple) else gain
                    score = (0.4, 0.6)[i] + 0.03 * seed + gain / 100
                    cell = cells.Cell(strategy, C, unique, seed, None, Path("x"), ())
                    outcomes[cell] = outcome_of(strategy, C, seed, score)
    return study, outcomes


def without(outcomes, **kind):
    """The outcomes but for those of the cells that have these values."""
    return {cell: outcome for cell, outcome in outcomes.items()
            if any(getattr(cell, key) != value for key, value in kind.items())}
