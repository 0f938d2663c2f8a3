"""Reads the scores that the tasks of the array wrote, prints them from worst to best, and names the best.

It is run as `python best.py FOLDER`.
"""

import json
import sys
from pathlib import Path

TASKS = 20


def main() -> None:
    """Compare what is in the folder. Fails where a task's score is missing."""
    folder = Path(sys.argv[1])
    missing = [task for task in range(TASKS) if not (folder / f"{task}.json").is_file()]
    if missing:
        sys.exit(f"best.py: {folder} has no score of the tasks {', '.join(map(str, missing))}")
    scores = [json.loads((folder / f"{task}.json").read_text()) for task in range(TASKS)]
    scores.sort(key=lambda score: (score["accuracy"], -score["C"]))  # of equals the simplest, which has the smallest C
    for score in scores:
        print(f"task {score['task']:>2}: C={score['C']:<6g} gamma={score['gamma']:<6g} {score['accuracy']:.2%}")
    best = scores[-1]
    Path("best.json").write_text(json.dumps(best) + "\n")
    print(f"best: C={best['C']:g} gamma={best['gamma']:g} with {best['accuracy']:.2%}")


if __name__ == "__main__":
    main()
