"""LightGBM's boosted trees that tell wines apart, converted by onnxmltools."""

import sys
from pathlib import Path

import numpy as np
from lightgbm import LGBMClassifier
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_wine

from examples.recording import record_table


def main(folder: Path) -> None:
    data = load_wine()
    measures = data.data.astype(np.float32)
    trees = LGBMClassifier(n_estimators=10, num_leaves=8, random_state=1, n_jobs=1, verbose=-1)
    trees.fit(measures, data.target)

    columns = measures.shape[1]
    initial = [("measures", FloatTensorType([None, columns]))]
    model = convert_lightgbm(trees, initial_types=initial, target_opset=15)
    (folder / "lightgbm.onnx").write_bytes(model.SerializeToString())

    wines = measures[[0, 70, 150]]
    scores = trees.predict_proba(wines).astype(np.float32)
    answer = {
        "label": trees.predict(wines).astype(np.int64),
        "probabilities": [dict(enumerate(row)) for row in scores],
    }
    rows = [dict(zip(data.feature_names, row, strict=True)) for row in wines]
    print("largest difference to LightGBM:", record_table(folder, "lightgbm", rows, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
