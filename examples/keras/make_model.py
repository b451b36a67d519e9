"""A convolutional network of Keras that reads handwritten digits, converted by tf2onnx."""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from keras import layers
from sklearn.datasets import load_digits

from examples.recording import record


def main(folder: Path) -> None:
    keras.utils.set_random_seed(1)
    tf.config.experimental.enable_op_determinism()
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = network.fit(images[3:], digits.target[3:], epochs=15, verbose=0)
    print("accuracy while training:", history.history["accuracy"][-1])

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32, name="image")])
    def score(image):
        return {"probabilities": network(image)}

    model, _ = tf2onnx.convert.from_function(score, input_signature=score.input_signature, opset=15)
    (folder / "keras.onnx").write_bytes(model.SerializeToString())

    held_back = images[:3]
    answer = {"probabilities": network.predict(held_back, verbose=0)}
    print("largest difference to Keras:", record(folder, "keras", {"image": held_back}, answer))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
