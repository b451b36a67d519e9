"""A pipeline of scikit-learn that tells irises apart, converted by skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from examples.recording import record


def main(folder: Path) -> None:
    iris = load_iris()
    species = iris.target_names[iris.target]
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(iris.data, species)

    # Without the map around the probabilities: /score returns them as a tensor, too.
    model = to_onnx(
        pipeline,
        initial_types=[("measures", FloatTensorType([None, 4]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    (folder / "sklearn-iris.onnx").write_bytes(model.SerializeToString())

    flowers = iris.data[[0, 60, 120]].astype(np.float32)
    answer = {
        "label": pipeline.predict(flowers).astype(object),
        "probabilities": pipeline.predict_proba(flowers).astype(np.float32),
    }
    print("largest difference to scikit-learn:", record(folder, "sklearn-iris", {"measures": flowers}, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
