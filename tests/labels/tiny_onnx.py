"""An ONNX file written by hand: mean colours times a matrix. The format is protobuf: tag, length, bytes.

ModelProto {ir_version: 1, graph: 7, opset_import: 8}, GraphProto {node: 1, name: 2, initializer: 5, input: 11,
output: 12}, NodeProto {input: 1, output: 2, op_type: 4}, TensorProto {dims: 1, data_type: 2, name: 8, raw_data: 9}.
"""

import numpy as np


def number(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(tag: int, content: bytes | str | int) -> bytes:
    if isinstance(content, int):
        return number(tag << 3) + number(content)
    data = content.encode() if isinstance(content, str) else content
    return number(tag << 3 | 2) + number(len(data)) + data


def value(name: str, shape: list[int | str]) -> bytes:
    """ValueInfoProto of floats."""
    dims = b"".join(field(1, field(1, d) if isinstance(d, int) else field(2, d)) for d in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def node(operation: str, inputs: list[str], output: str) -> bytes:
    return field(1, b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, operation))


def mean_colours(matrix: np.ndarray, batch: int | str = "N", side: int | str = 8, outputs: int = 1) -> bytes:
    """y = mean over the pixels of x (N, 3, side, side), times the matrix (3, S)."""
    rows, columns = matrix.shape
    weight = field(1, rows) + field(1, columns) + field(2, 1) + field(8, "W")
    weight += field(9, matrix.astype("<f4").tobytes())
    graph = node("GlobalAveragePool", ["x"], "p") + node("Flatten", ["p"], "f") + node("MatMul", ["f", "W"], "y")
    graph += field(2, "g") + field(5, weight)
    graph += field(11, value("x", [batch, 3, side, side])) + field(12, value("y", [batch, columns]))
    if outputs == 2:
        graph += field(12, value("f", [batch, rows]))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
