"""Trains a classifier on the handwritten digits that scikit-learn ships, and says how well it does.

    python train.py                     one training run, with good values
    python train.py --task 7            the eighth of the 20 pairs of values that the array tries

It prints one line, writes `score.json` into the folder that it runs in and, where `--scores FOLDER` says so, also
FOLDER/NUMBER.json, so that another job can compare the runs.
"""

import argparse
import itertools
import json
import os
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
WIDTHS = (0.0001, 0.0003, 0.001, 0.003)
GRID = tuple(itertools.product(PENALTIES, WIDTHS))
"""The 20 pairs of (C, gamma) that the tasks 0 to 19 of an array try."""


def accuracy(penalty: float, width: float) -> float:
    """Share of digits that are told right, by five-fold cross-validation."""
    digits = load_digits()
    scores = cross_val_score(SVC(C=penalty, gamma=width), digits.data, digits.target, cv=5)
    return float(scores.mean())


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader finds all of it or nothing, also when two attempts write it."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_text(text)
    part.replace(path)


def main() -> None:
    """Train once and tell the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=int, help="which pair of the grid, 0 to 19")
    parser.add_argument("--scores", type=Path, help="folder that gets the score under the number of the task")
    given = parser.parse_args()
    penalty, width = GRID[given.task] if given.task is not None else (10.0, 0.001)
    result = {"task": given.task, "C": penalty, "gamma": width, "accuracy": round(accuracy(penalty, width), 4)}
    text = json.dumps(result) + "\n"
    write_whole(Path("score.json"), text)
    if given.scores is not None:
        write_whole(given.scores / f"{given.task or 0}.json", text)
    print(f"C={penalty:g} gamma={width:g}: {result['accuracy']:.2%} of the digits are told right")


if __name__ == "__main__":
    main()
