"""XGBoost's boosted trees on the Wisconsin breast cancer data, converted by onnxmltools."""

import sys
from pathlib import Path

import numpy as np
from onnxmltools import convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier

from examples.recording import record


def main(folder: Path) -> None:
    data = load_breast_cancer()
    measures = data.data.astype(np.float32)
    trees = XGBClassifier(n_estimators=20, max_depth=3, random_state=1, n_jobs=1).fit(measures, data.target)

    columns = measures.shape[1]
    model = convert_xgboost(trees, initial_types=[("measures", FloatTensorType([None, columns]))], target_opset=15)
    (folder / "xgboost.onnx").write_bytes(model.SerializeToString())

    patients = measures[[0, 19, 40]]
    answer = {"label": trees.predict(patients).astype(np.int64), "probabilities": trees.predict_proba(patients)}
    print("largest difference to XGBoost:", record(folder, "xgboost", {"measures": patients}, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
