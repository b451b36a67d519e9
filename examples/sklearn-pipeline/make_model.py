"""A pipeline of scikit-learn on numbers, some of them missing, and categories, converted by skl2onnx."""

import sys
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.recording import record_table

NUMBERS = ["age", "visits"]
CATEGORIES = {"plan": ["basic", "family", "student"], "city": ["Basel", "Bern", "Chur"]}
ROWS = [
    {"age": 34.0, "visits": 3.0, "plan": "family", "city": "Bern"},
    {"age": None, "visits": 0.0, "plan": "basic", "city": "Chur"},
    {"age": 21.0, "visits": None, "plan": "student", "city": "Basel"},
]


def main(folder: Path) -> None:
    random = np.random.default_rng(7)
    count = 400
    age, visits = random.normal(40, 12, count).round(), random.poisson(3, count).astype(float)
    plan, city = (random.choice(names, count) for names in CATEGORIES.values())
    leaves = 1.5 * (plan == "basic") - 0.5 * visits - 0.03 * (age - 40) + random.normal(0, 0.5, count) > 0
    for numbers in (age, visits):
        numbers[random.random(count) < 0.1] = np.nan
    table = np.column_stack([age.astype(object), visits.astype(object), plan.astype(object), city.astype(object)])

    prepared = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
            ("categories", OneHotEncoder(handle_unknown="error"), [2, 3]),
        ]
    )
    pipeline = make_pipeline(prepared, LogisticRegression())
    pipeline.fit(table, np.where(leaves, "leaves", "stays"))

    inputs = [(name, FloatTensorType([None, 1])) for name in NUMBERS]
    inputs += [(name, StringTensorType([None, 1])) for name in CATEGORIES]
    model = to_onnx(pipeline, initial_types=inputs, target_opset={"": 17, "ai.onnx.ml": 3})
    (folder / "sklearn-pipeline.onnx").write_bytes(model.SerializeToString())

    rows = np.array([[np.nan if cell is None else cell for cell in row.values()] for row in ROWS], dtype=object)
    scores = pipeline.predict_proba(rows).astype(np.float32)
    answer = {
        "output_label": pipeline.predict(rows).astype(object),
        "output_probability": [dict(zip(pipeline.classes_.tolist(), row, strict=True)) for row in scores],
    }
    print("largest difference to scikit-learn:", record_table(folder, "sklearn-pipeline", ROWS, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
