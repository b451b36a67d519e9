"""Models whose memory is measured: the light Zoo, the same with weights in the file, and one of each other kind."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks import cases

LIGHT = (
    "bvlc_alexnet",
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
    "zfnet512",
)
"""Networks of the ONNX Model Zoo that the onnx package brings; their weights are constants made on loading."""
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass(frozen=True)
class MemoryCase:
    """One model. ``sizes`` are those of open dimensions in requests, by name; others are 1."""

    name: str
    make: Callable[[], ModelProto]
    sizes: Mapping[str, int] = field(default_factory=dict)
    external: bool = False
    """Whether its weights lie in a file of their own."""

    def save(self, folder: Path) -> Path:
        """Write the model; return the path of its .onnx file."""
        path = folder / f"{self.name}.onnx"
        beside: dict[str, Any] = (
            {"save_as_external_data": True, "location": f"{self.name}.bin"} if self.external else {}
        )
        onnx.save(self.make(), path, **beside)
        return path


class _Graph:
    """Nodes and seeded weights that a model is put together from."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, Any] = {}
        self._random = np.random.default_rng(cases.SEED)
        self._count = 0

    def weight(self, *shape: int) -> str:
        values = self._random.standard_normal(shape, dtype=np.float32)
        return self.constant((values / max(np.prod(shape[1:]), 1) ** 0.5).astype(np.float32))

    def constant(self, values: Any) -> str:
        self._count += 1
        self.weights[f"w{self._count}"] = values
        return f"w{self._count}"

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        self._count += 1
        name = output or f"v{self._count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], f"n{self._count}", **attributes))
        return name

    def model(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], opset: int = 17) -> ModelProto:
        def values(given: Mapping[str, Any]) -> list[onnx.ValueInfoProto]:
            kinds = [(n, *s) if isinstance(s, tuple) else (n, _FLOAT, s) for n, s in given.items()]
            return [helper.make_tensor_value_info(*each) for each in kinds]

        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, "case", values(inputs), values(outputs), tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def filled(name: str) -> ModelProto:
    """A light model whose made-up weights are replaced by random ones in the file."""
    model = cases.light(name)
    random = np.random.default_rng(cases.SEED)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        weights = random.standard_normal(shapes[node.input[0]].tolist(), dtype=np.float32) / 50
        # Variances are among those of one dimension, and have no negative numbers.
        weights = np.abs(weights) + np.float32(0.1) if weights.ndim == 1 else weights
        model.graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        # IR version 3 wants every initializer among the inputs.
        model.graph.input.append(helper.make_tensor_value_info(node.output[0], _FLOAT, weights.shape))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    for left in (model.graph.initializer, model.graph.input):
        needed = [each for each in left if each.name in used]
        del left[:]
        left.extend(needed)
    return model


def lstm() -> ModelProto:
    """Two bidirectional layers over 1,024 steps."""
    steps, features, hidden = 1024, 128, 512
    graph = _Graph()
    value = graph.add("Transpose", "x", perm=[1, 0, 2])
    for size in (features, 2 * hidden):
        weights = [graph.weight(2, 4 * hidden, size), graph.weight(2, 4 * hidden, hidden), graph.weight(2, 8 * hidden)]
        value = graph.add("LSTM", value, *weights, hidden_size=hidden, direction="bidirectional")
        value = graph.add("Transpose", value, perm=[0, 2, 1, 3])
        value = graph.add("Reshape", value, graph.constant(np.array([0, 0, -1])))
    graph.add("ReduceMean", value, output="y", axes=[0], keepdims=0)
    return graph.model({"x": ["batch", steps, features]}, {"y": ["batch", 2 * hidden]})


def transformer(layers: int = 6, width: int = 384, heads: int = 6, words: int = 30522) -> ModelProto:
    """An encoder as BERT's, of a small size; batch and length are open."""
    graph = _Graph()
    value = graph.add("Gather", graph.weight(words, width), "ids")
    length = graph.add("Shape", "ids", start=1, end=2)
    zero, one = graph.constant(np.array([0])), graph.constant(np.array([1]))
    places = graph.add("Slice", graph.weight(512, width), zero, length, zero, one)
    value = graph.add("Add", value, places)

    def dense(value: str, before: int, after: int) -> str:
        return graph.add("Add", graph.add("MatMul", value, graph.weight(before, after)), graph.weight(after))

    def norm(value: str) -> str:
        return graph.add("LayerNormalization", value, graph.weight(width), graph.weight(width))

    split = graph.constant(np.array([0, 0, heads, width // heads]))
    joined = graph.constant(np.array([0, 0, width]))
    scale = graph.constant(np.array((width / heads) ** 0.5, np.float32))
    half, unit = (graph.constant(np.array(number, np.float32)) for number in (0.5, 1))
    root = graph.constant(np.array(2**0.5, np.float32))
    for _ in range(layers):
        query, key, content = (
            graph.add("Transpose", graph.add("Reshape", dense(value, width, width), split), perm=order)
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scores = graph.add("Softmax", graph.add("Div", graph.add("MatMul", query, key), scale))
        mixed = graph.add("Transpose", graph.add("MatMul", scores, content), perm=[0, 2, 1, 3])
        value = norm(graph.add("Add", value, dense(graph.add("Reshape", mixed, joined), width, width)))
        inner = dense(value, width, 4 * width)
        gate = graph.add("Add", graph.add("Erf", graph.add("Div", inner, root)), unit)
        inner = graph.add("Mul", graph.add("Mul", inner, gate), half)
        value = norm(graph.add("Add", value, dense(inner, 4 * width, width)))
    graph.add("Identity", value, output="y")
    return graph.model({"ids": (_INT64, ["batch", "length"])}, {"y": ["batch", "length", width]})


def embedding() -> ModelProto:
    """A table of 200,000 words, mostly."""
    graph = _Graph()
    rows = graph.add("Gather", graph.weight(200_000, 256), "ids")
    mean = graph.add("ReduceMean", rows, axes=[1], keepdims=0)
    graph.add("Gemm", mean, graph.weight(256, 10), graph.weight(10), output="y")
    return graph.model({"ids": (_INT64, ["batch", 32])}, {"y": ["batch", 10]})


def unet(size: int = 384, width: int = 32, levels: int = 4) -> ModelProto:
    """Segmentation: full-size maps, kept until the way up needs them."""
    graph = _Graph()

    def block(value: str, before: int, after: int) -> str:
        for channels in (before, after):
            value = graph.add("Conv", value, graph.weight(after, channels, 3, 3), graph.weight(after), pads=[1] * 4)
            value = graph.add("Relu", value)
        return value

    value, channels, kept = "x", 3, []
    for level in range(levels):
        value = block(value, channels, width << level)
        channels = width << level
        kept.append(value)
        value = graph.add("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    value = block(value, channels, 2 * channels)
    channels *= 2
    for skipped in reversed(kept):
        weight = graph.weight(channels, channels // 2, 2, 2)
        value = graph.add("ConvTranspose", value, weight, kernel_shape=[2, 2], strides=[2, 2])
        value = block(graph.add("Concat", skipped, value, axis=1), channels, channels // 2)
        channels //= 2
    graph.add("Conv", value, graph.weight(1, width, 1, 1), graph.weight(1), output="y")
    return graph.model({"x": ["batch", 3, size, size]}, {"y": ["batch", 1, size, size]})


def half_precision() -> ModelProto:
    """A multilayer perceptron of FP16, which the CPU computes in FP32."""
    graph = _Graph()
    value = "x"
    for _ in range(8):
        weights = [graph.weight(1024, 1024), graph.weight(1024)]
        for name in weights:
            graph.weights[name] = graph.weights[name].astype(np.float16)
        value = graph.add("Relu", graph.add("Gemm", value, *weights))
    graph.add("Softmax", value, output="y")
    half = TensorProto.FLOAT16
    return graph.model({"x": (half, ["batch", 1024])}, {"y": (half, ["batch", 1024])})


def wide() -> ModelProto:
    """A multilayer perceptron of 128 MiB."""
    return cases._dense([2048, 4096, 4096, 2048, 10], "Softmax")


def decoder(layers: int = 8, width: int = 512, words: int = 32000) -> ModelProto:
    """A language model whose layers have no biases, and whose last one is its table of words, transposed."""
    graph = _Graph()
    table = graph.weight(words, width)
    value = graph.add("Gather", table, "ids")
    for _ in range(layers):
        normal = graph.add("LayerNormalization", value, graph.weight(width))
        query, key, content = (graph.add("MatMul", normal, graph.weight(width, width)) for _ in range(3))
        scores = graph.add("Softmax", graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 2, 1])))
        mixed = graph.add("MatMul", graph.add("MatMul", scores, content), graph.weight(width, width))
        value = graph.add("Add", value, mixed)
        normal = graph.add("LayerNormalization", value, graph.weight(width))
        gate, inner = (graph.add("MatMul", normal, graph.weight(width, 4 * width)) for _ in range(2))
        inner = graph.add("Mul", graph.add("Sigmoid", gate), inner)
        value = graph.add("Add", value, graph.add("MatMul", inner, graph.weight(4 * width, width)))
    graph.add("MatMul", value, graph.add("Transpose", table, perm=[1, 0]), output="y")
    return graph.model({"ids": (_INT64, ["batch", "length"])}, {"y": ["batch", "length", words]})


def separable() -> ModelProto:
    """Convolutions as MobileNet's: each channel for itself, then all of one pixel."""
    graph = _Graph()
    layers = [(32, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    value, before = "x", 3
    zero, six = graph.constant(np.array(0, np.float32)), graph.constant(np.array(6, np.float32))
    for after, stride in layers:
        if before == 3:
            value = graph.add("Conv", value, graph.weight(after, 3, 3, 3), pads=[1] * 4, strides=[stride] * 2)
        else:
            weight = graph.weight(before, 1, 3, 3)
            value = graph.add("Conv", value, weight, pads=[1] * 4, strides=[stride] * 2, group=before)
            value = graph.add("Conv", graph.add("Clip", value, zero, six), graph.weight(after, before, 1, 1))
        statistics = [graph.constant(np.ones(after, np.float32)) for _ in range(4)]
        value = graph.add("Clip", graph.add("BatchNormalization", value, *statistics), zero, six)
        before = after
    value = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    graph.add("Gemm", value, graph.weight(1000, before), graph.weight(1000), output="y", transB=1)
    return graph.model({"x": ["batch", 3, 224, 224]}, {"y": ["batch", 1000]})


def sound() -> ModelProto:
    """Convolutions over five seconds of sound."""
    graph = _Graph()
    value, before = "x", 1
    for size, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
        value = graph.add("Conv", value, graph.weight(512, before, size), graph.weight(512), strides=[stride])
        value, before = graph.add("Relu", value), 512
    graph.add("ReduceMean", value, output="y", axes=[2], keepdims=0)
    return graph.model({"x": ["batch", 1, 80000]}, {"y": ["batch", 512]})


def superresolution(size: int = 512) -> ModelProto:
    """Few weights, large pictures, and an answer of 2.4 million numbers."""
    graph = _Graph()
    value = "x"
    for after, before, width in ((64, 1, 5), (64, 64, 3), (32, 64, 3), (9, 32, 3)):
        weights = [graph.weight(after, before, width, width), graph.weight(after)]
        value = graph.add("Relu", graph.add("Conv", value, *weights, pads=[width // 2] * 4))
    value = graph.add("Reshape", value, graph.constant(np.array([-1, 1, 3, 3, size, size])))
    value = graph.add("Transpose", value, perm=[0, 1, 4, 2, 5, 3])
    graph.add("Reshape", value, graph.constant(np.array([-1, 1, 3 * size, 3 * size])), output="y")
    return graph.model({"x": ["batch", 1, size, size]}, {"y": ["batch", 1, 3 * size, 3 * size]})


def gru() -> ModelProto:
    """A recurrent layer over a sequence of open length, and a word for each of its steps."""
    graph = _Graph()
    weights = [graph.weight(1, 3 * 1024, 256), graph.weight(1, 3 * 1024, 1024), graph.weight(1, 6 * 1024)]
    value = graph.add("GRU", "x", *weights, hidden_size=1024)
    value = graph.add("Squeeze", value, graph.constant(np.array([1])))
    graph.add("MatMul", value, graph.weight(1024, 5000), output="y")
    return graph.model({"x": ["length", 1, 256]}, {"y": ["length", 1, 5000]})


def forest() -> ModelProto:
    """300 trees that skl2onnx converts."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(cases.SEED)
    x = random.random((4000, 20), np.float32)
    y = random.integers(0, 3, 4000)
    trained = RandomForestClassifier(300, random_state=cases.SEED, n_jobs=1).fit(x, y)
    return to_onnx(trained, x[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3})  # type: ignore[no-any-return]


def quantized(form: str) -> ModelProto:
    """ResNet-50 of INT8, as ``quantize_static`` writes it: ``QDQ`` or ``QOperator``."""
    import tempfile

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Picture(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            random = np.random.default_rng(cases.SEED)
            self._left = [{"gpu_0/data_0": random.random((1, 3, 224, 224), np.float32)}]

        def get_next(self) -> dict[str, Any] | None:
            return self._left.pop() if self._left else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        model = onnx.version_converter.convert_version(filled("resnet50"), 13)
        model.ir_version = 8
        weights = {tensor.name for tensor in model.graph.initializer}
        asked = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(asked)
        onnx.save(model, source)
        quantize_static(source, target, Picture(), quant_format=QuantFormat[form])
        return onnx.load(target)


CASES = (
    *(MemoryCase(f"light_{name}", lambda name=name: cases.light(name)) for name in LIGHT),  # type: ignore[misc]
    *(MemoryCase(f"filled_{name}", lambda name=name: filled(name)) for name in LIGHT),  # type: ignore[misc]
    MemoryCase("iris", cases.iris),
    MemoryCase("mlp", cases.mlp),
    MemoryCase("wide", wide),
    MemoryCase("wide_external", wide, external=True),
    MemoryCase("resnet50_external", lambda: filled("resnet50"), external=True),
    MemoryCase("lstm", lstm),
    MemoryCase("transformer", transformer),
    MemoryCase("transformer_256", transformer, sizes={"length": 256}),
    MemoryCase("transformer_large", lambda: transformer(12, 768, 12), sizes={"length": 64}),
    MemoryCase("embedding", embedding),
    MemoryCase("unet", unet),
    MemoryCase("half_precision", half_precision),
    MemoryCase("decoder", decoder),
    MemoryCase("decoder_128", decoder, sizes={"length": 128}),
    MemoryCase("decoder_large", lambda: decoder(12, 1024)),
    MemoryCase("decoder_large_external", lambda: decoder(12, 1024), external=True),
    MemoryCase("separable", separable),
    MemoryCase("separable_4", separable, sizes={"batch": 4}),
    MemoryCase("sound", sound),
    MemoryCase("superresolution", superresolution),
    MemoryCase("gru", gru, sizes={"length": 200}),
    MemoryCase("embedding_external", embedding, external=True),
    MemoryCase("transformer_large_external", lambda: transformer(12, 768, 12), external=True),
    MemoryCase("unet_external", unet, external=True),
    MemoryCase("vgg19_external", lambda: filled("vgg19"), external=True),
    MemoryCase("forest", forest),
    MemoryCase("resnet50_qdq", lambda: quantized("QDQ")),
    MemoryCase("resnet50_qoperator", lambda: quantized("QOperator")),
)
