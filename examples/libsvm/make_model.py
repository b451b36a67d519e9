"""A support vector regression of libSVM on the diabetes data, converted by onnxmltools."""

import sys
from pathlib import Path

import numpy as np
from libsvm import svm, svmutil
from onnxmltools.convert import convert_libsvm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_diabetes

from examples.recording import record

# The converter looks for libSVM's modules by the names that they had before they became a package.
sys.modules.update(svm=svm, svmutil=svmutil)


def main(folder: Path) -> None:
    data = load_diabetes()
    measures = data.data.astype(np.float32)
    # 3: epsilon-SVR; 2: radial basis functions.
    machine = svmutil.svm_train(data.target.tolist(), measures.tolist(), "-s 3 -t 2 -c 100 -g 5 -p 20 -q")

    columns = measures.shape[1]
    model = convert_libsvm(machine, "libsvm", [("measures", FloatTensorType([None, columns]))], target_opset=15)
    (folder / "libsvm.onnx").write_bytes(model.SerializeToString())

    patients = measures[[0, 100, 200]]
    progression, _, _ = svmutil.svm_predict([], patients.tolist(), machine, "-q")
    answer = {model.graph.output[0].name: np.array(progression, np.float32).reshape(-1, 1)}
    # The numbers are between 25 and 346.
    print("largest difference to libSVM:", record(folder, "libsvm", {"measures": patients}, answer, tolerance=1e-3))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
