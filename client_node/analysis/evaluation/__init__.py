"""Measures a model on the rows of a label file, and writes what it measured for people to look at."""

from client_node.analysis.evaluation.service import (
    Judged,
    Judgement,
    class_table,
    evaluate_csv,
    expected_calibration_error,
    figures,
    judge_csv,
)

__all__ = [
    "Judged",
    "Judgement",
    "class_table",
    "evaluate_csv",
    "expected_calibration_error",
    "figures",
    "judge_csv",
]
