"""A logistic regression of scikit-learn on 200 columns, converted by skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

from examples.recording import compare, write_answer

COLUMNS = 200


def main(folder: Path) -> None:
    table, classes = make_classification(
        300, COLUMNS, n_informative=20, n_redundant=0, n_classes=3, class_sep=2.0, random_state=5
    )
    table = table.round(3).astype(np.float32)
    regression = LogisticRegression(C=0.05, max_iter=300).fit(table, np.array(["low", "medium", "high"])[classes])

    initial = [("columns", FloatTensorType([None, COLUMNS]))]
    model = to_onnx(regression, initial_types=initial, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / "wide-table.onnx").write_bytes(model.SerializeToString())

    rows = table[:3]
    lines = ["," + ",".join(f"c{number:03}" for number in range(COLUMNS))]
    lines += [",".join([str(index), *map(str, row)]) for index, row in enumerate(rows)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    scores = regression.predict_proba(rows).astype(np.float32)
    answer = {
        "output_label": regression.predict(rows).astype(object),
        "output_probability": [dict(zip(regression.classes_.tolist(), row, strict=True)) for row in scores],
    }
    difference = compare(folder / "wide-table.onnx", {"columns": rows}, answer)
    write_answer(folder, answer)
    print("largest difference to scikit-learn:", difference)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
