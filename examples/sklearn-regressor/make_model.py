"""Boosted trees of scikit-learn that estimate how a diabetes proceeds, converted by skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor

from examples.recording import record_table


def main(folder: Path) -> None:
    data = load_diabetes()
    measures = data.data.astype(np.float32)
    trees = GradientBoostingRegressor(n_estimators=30, max_depth=3, random_state=1).fit(measures, data.target)

    columns = measures.shape[1]
    initial = [("measures", FloatTensorType([None, columns]))]
    model = to_onnx(trees, initial_types=initial, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / "sklearn-regressor.onnx").write_bytes(model.SerializeToString())

    patients = measures[[0, 100, 200]]
    rows = [dict(zip(data.feature_names, row, strict=True)) for row in patients]
    answer = {"variable": trees.predict(patients).astype(np.float32).reshape(-1, 1)}
    difference = record_table(folder, "sklearn-regressor", rows, answer, tolerance=1e-3, form="split")
    print("largest difference to scikit-learn:", difference)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
