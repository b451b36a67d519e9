"""CatBoost's trees that tell irises apart, as CatBoost itself saves them in ONNX."""

import sys
from pathlib import Path

import numpy as np
from catboost import CatBoostClassifier

from examples.recording import record_table

MEASURES = ["sepal length", "sepal width", "petal length", "petal width"]
CENTRES = {0: [5.0, 3.4, 1.5, 0.2], 1: [5.9, 2.8, 4.3, 1.3], 2: [6.6, 3.0, 5.6, 2.0]}
"""Fisher's irises, by and large."""
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.1, 1.2], [6.3, 3.3, 6.0, 2.5]]


def main(folder: Path) -> None:
    random = np.random.default_rng(1)
    flowers = np.concatenate([random.normal(centre, 0.3, (50, 4)) for centre in CENTRES.values()]).astype(np.float32)
    species = np.repeat(list(CENTRES), 50)
    trees = CatBoostClassifier(iterations=10, depth=3, random_seed=1, thread_count=1, verbose=False)
    trees.fit(flowers, species)
    trees.save_model(str(folder / "catboost.onnx"), format="onnx")

    asked = np.array(ROWS, np.float32)
    scores = trees.predict_proba(asked).astype(np.float32)
    answer = {
        "label": trees.predict(asked).reshape(-1).astype(np.int64),
        "probabilities": [dict(enumerate(row)) for row in scores],
    }
    rows = [dict(zip(MEASURES, row, strict=True)) for row in ROWS]
    print("largest difference to CatBoost:", record_table(folder, "catboost", rows, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
