"""reporting/words.py: numbers are written as a report's reader expects them."""
import math

import pytest

from reporting import words


@pytest.mark.parametrize("function, arguments, text", [
    (words.plus_minus, (9.57, 6.71), "9.6 ± 6.7"), (words.plus_minus, (9.57, None), "9.6"),
    (words.plus_minus, (-0.04, 0.02), "0.0 ± 0.0"),  # and not -0.0
    (words.listed, [["a"]], "a"), (words.listed, [["a", "b", "c"]], "a, b and c"),
    (words.data_setting, [None], "unlimited data"),
    (words.data_setting, [math.inf], "unlimited data"),
    (words.data_setting, [10000], "10,000 distinct tokens"),
    (words.power_of_ten, [10 ** 12], "10¹²"), (words.power_of_ten, [2_500_000], "2.5·10⁶"),
    # Its short form would be another number.
    (words.spell, [3 * 10 ** 12], "3.00e12"), (words.spell, [3_001_000], "3001000")])
def test_lists_and_numbers_in_words(function, arguments, text):
    assert function(*arguments) == text


def test_a_table_of_scores_has_a_line_for_each_metric_and_the_average():
    result = {"lr": 1e-4, "batch_size": 16, "epochs": 2, "settings_tried": 3, "seeds": 1,
              "seconds": 60, "score": {"test": [0.7, None]},
              "majority": {"test": {"accuracy": 0.5}},
              "metrics": {"test": {"accuracy": [0.7, None]}}}
    spread = {**result, "seeds": 2, "metrics": {"test": {"accuracy": [0.713, 0.008]}}}
    heads, rte, cola, average = words.scores_table({"rte": result, "cola": spread}).splitlines()
    assert rte.split() == ["rte", "test", "accuracy", "70.0", "50.0", "lr", "0.0001,", "batch",
                           "16,", "2", "epochs:", "3", "tried,", "1", "seed"]
    assert "71.3 +-  0.8" in cola and "2 seeds" in cola
    assert average == "average over these 2 tasks, test sets: 70.0   (120 s of fine-tuning)"
