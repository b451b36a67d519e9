"""An isolation forest of scikit-learn that finds what is unusual, converted by skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import IsolationForest

from examples.recording import record_table

SENSORS = ["temperature", "pressure", "vibration"]
ROWS = [[20.5, 1.0, 0.1], [21.0, 1.05, 0.12], [80.0, 3.5, 2.0]]


def main(folder: Path) -> None:
    usual = np.random.default_rng(3).normal([21, 1, 0.1], [1.5, 0.1, 0.03], (300, 3)).astype(np.float32)
    forest = IsolationForest(n_estimators=10, max_samples=32, random_state=1).fit(usual)

    initial = [("sensors", FloatTensorType([None, len(SENSORS)]))]
    model = to_onnx(forest, initial_types=initial, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / "isolation-forest.onnx").write_bytes(model.SerializeToString())

    measured = np.array(ROWS, np.float32)
    answer = {
        "label": forest.predict(measured).astype(np.int64).reshape(-1, 1),
        "scores": forest.decision_function(measured).astype(np.float32).reshape(-1, 1),
    }
    rows = [dict(zip(SENSORS, row, strict=True)) for row in ROWS]
    print("largest difference to scikit-learn:", record_table(folder, "isolation-forest", rows, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
