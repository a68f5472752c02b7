"""Lower precision for a member's ONNX file: int8 by calibration, or fp16. Other code decides on the accuracy loss.

Static quantisation, QDQ form: every convolution and matrix product is wrapped in pairs of QuantizeLinear and
DequantizeLinear that the runtimes fold into int8 kernels. Weights are signed, one scale per filter; activations are
unsigned, with the range of the calibration images. The inputs, the activation, the operators that scale values and
those that prepare the columns of a table are unchanged. The same file and images give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ripieno import files
from ripieno.backends.batch_limit import limit_batch
from ripieno.errors import EngineError, error_summary, require

BATCH = 32
"""Images per calibration batch, at most."""
MAPS = 16
"""Maps of the size of the images that a network is taken to have, for which memory is needed."""
QUANTISED = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat")
"""Operators with int8 kernels; between them values need not be converted to fp32."""
PRODUCTS = ("Gemm", "MatMul")
SCALING = ("Identity", "Cast", "Add", "Sub", "Mul", "Div", "Reshape", "Squeeze")
"""Operators after the last product by which a network scales its values."""


def write_int8(source: Path, target: Path, images: NDArray[np.generic]) -> None:
    """Write the ONNX file `source` to `target` in int8, calibrated on `images` (samples, height, width, channels).

    Raises EngineError when its graph cannot be quantised, MissingExtraError without `onnx` and `onnxruntime`.
    """
    require("onnx")
    require("onnxruntime")
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder, quiet():
        quantised = Path(folder) / "quantised.onnx"
        try:
            _quantise(source, quantised, images)
        except EngineError:
            raise
        except Exception as error:  # a foreign graph may cause any exception
            raise EngineError(f"{source} cannot be quantised: {error_summary(error, named=True)[:200]}") from error
        files.copy_file(quantised, target)


def write_int8_openvino(source: Path, target: Path, images: NDArray[np.generic]) -> None:
    """Write the ONNX file `source` to `target` in int8 by OpenVINO's quantiser, calibrated on `images`.

    The same operators keep their precision as in `write_int8`, and OpenVINO chooses among the others. Raises
    EngineError when the graph cannot be quantised, MissingExtraError without `nncf`, `onnx` and `onnxruntime`.
    """
    tool, onnx = require("nncf"), require("onnx")
    with tempfile.TemporaryDirectory(prefix="ripieno-") as folder, quiet():
        try:
            model = onnx.load(str(_prepare(source, Path(folder))))
            _check_products(model.graph, source)
            batches = list(_Reader(model.graph.input[0].name, images))
            kept = [*_value_operators(model.graph), *_row_operators(model.graph)]
            ignored = tool.IgnoredScope(names=kept, validate=False)
            quantised = tool.quantize(model, tool.Dataset(batches), subset_size=len(batches), ignored_scope=ignored)
        except EngineError:
            raise
        except Exception as error:  # as above
            raise EngineError(f"{source} cannot be quantised: {error_summary(error, named=True)[:200]}") from error
    files.write_bytes(target, quantised.SerializeToString(deterministic=True))


def write_fp16(source: Path, target: Path) -> None:
    """Write the ONNX file `source` to `target` in fp16; its input and output keep their types.

    Raises EngineError when its graph cannot be converted, MissingExtraError without `onnx` and `onnxruntime`.
    """
    onnx = require("onnx")
    try:
        with quiet():
            convert = require("onnxruntime.transformers.float16").convert_float_to_float16
            loaded = onnx.load(str(source))
            _check_products(loaded.graph, source)
            model = convert(loaded, keep_io_types=True)
    except EngineError:
        raise
    except Exception as error:  # as above
        raise EngineError(f"{source} cannot be converted to fp16: {error_summary(error, named=True)[:200]}") from error
    files.write_bytes(target, model.SerializeToString(deterministic=True))


def _quantise(source: Path, target: Path, images: NDArray[np.generic]) -> None:
    tool = require("onnxruntime.quantization")
    prepared = _prepare(source, target.parent)
    graph = require("onnx").load(str(prepared), load_external_data=False).graph
    _check_products(graph, source)
    tool.quantize_static(
        str(prepared),
        str(target),
        _Reader(graph.input[0].name, images),
        quant_format=tool.QuantFormat.QDQ,
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(QUANTISED),
        nodes_to_exclude=[*_value_operators(graph), *_row_operators(graph)],
    )


def _prepare(source: Path, folder: Path) -> Path:
    """Write `source` to `folder` with constants and batch normalisation folded, and with the shapes of its tensors."""
    prepared = folder / "prepared.onnx"
    require("onnxruntime.quantization.shape_inference").quant_pre_process(
        str(source), str(prepared), skip_symbolic_shape=True
    )
    return prepared


def _check_products(graph: Any, source: Path) -> None:
    """Raise EngineError for a graph without convolutions and matrix products, such as trees: it would stay in fp32."""
    if not any(node.op_type in ("Conv", *PRODUCTS) for node in graph.node):
        raise EngineError(f"{source} has no convolutions or matrix products: it would stay in fp32")


def _value_operators(graph: Any) -> list[str]:
    """Return the names of the operators from the last product of weights to the output, if it has values.

    Quantised values would have 256 steps. After a softmax or a sigmoid there are none.
    """
    producers = {name: node for node in graph.node for name in node.output}
    names: list[str] = []
    node = producers.get(graph.output[0].name)
    while node is not None and node.op_type in (*SCALING, *PRODUCTS):
        names += [node.name] if node.name else []
        inputs = [producers[name] for name in node.input if name in producers]
        node = inputs[0] if inputs and node.op_type in SCALING else None
    return names


def _row_operators(graph: Any) -> list[str]:
    """Return the names of the operators before the first layer for all columns, if the input is rows of a table.

    Their values have units of their own, such as prices and shares, of which one scale keeps neither. A product of each
    column's own is one of them: the int8 kernels take no weights of three axes.
    """
    if len(graph.input[0].type.tensor_type.shape.dim) != 2:
        return []
    axes = {weights.name: len(weights.dims) for weights in graph.initializer}
    after: set[str] = set()
    names: list[str] = []
    for node in graph.node:  # in topological order
        is_layer = node.op_type in PRODUCTS and any(axes.get(name) == 2 for name in node.input)
        if is_layer or after.intersection(node.input):
            after.update(node.output)
        elif node.name:
            names.append(node.name)
    return names


class _Reader:
    """Calibration images in batches, in the quantiser's interface."""

    def __init__(self, name: str, images: NDArray[np.generic]) -> None:
        self._name, self._images, self._next = name, images, 0
        self._size = limit_batch(BATCH, (*images.shape[1:-1], MAPS))

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        """Return the next batch; None after the last."""
        batch = np.ascontiguousarray(self._images[self._next : self._next + self._size])
        self._next += self._size
        return {self._name: batch} if len(batch) else None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (batch := self.get_next()) is not None:
            yield batch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the messages that the tools of ONNX log, print and warn."""
    loggers = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
