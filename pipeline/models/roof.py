"""The machine's matrix rate at the shapes of a model's layers: the roofline that engines are held against."""

import importlib.util
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.models.encoders.fast import linear_of
from pipeline.models.live import LiveEngine
from pipeline.models.multi_exit import MultiExit
from pipeline.models.packed import packed, packs

SMALL = 0.01
"""Share of all operations below which a product is left out: heads, poolers."""
COPIES = 24
"""Different weights of one shape at most; beyond, they are run again. That many do not fit into a core's caches."""


@dataclass(frozen=True)
class Product:
    """Products (rows, inner) by (inner, outer) that a pass runs.

    Attributes:
        times: how many.
        weights: how many different weights they have; layers may share theirs.
    """

    rows: int
    inner: int
    outer: int
    times: int
    weights: int

    @property
    def flops(self) -> int:
        """Operations of all of them; a multiply-add is two."""
        return 2 * self.rows * self.inner * self.outer * self.times


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the products with weights, and convolutions as the products that they come to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights: dict[tuple[int, int, int], list[int]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("linear", "mm", "addmm", "_linear_pointwise"):
            x, weight = args[:2] if name != "addmm" else args[1:3]
            shape = (x.numel() // x.shape[-1], x.shape[-1], out.shape[-1])
            self.weights[shape].append(id(weight) if weight.is_mkldnn else weight.data_ptr())
        elif name in ("convolution", "conv2d"):
            weight = args[1]
            shape = (out.numel() // out.shape[1], weight[0].numel(), weight.shape[0])
            self.weights[shape].append(weight.data_ptr())
        return out


def products_of(model: MultiExit, batch: Mapping[str, Tensor]) -> tuple[Product, ...]:
    """The products of a full pass over a batch, but for the small ones."""
    seen = _Seen()
    with seen:
        LiveEngine(model, None)(batch)
    found = [Product(*shape, len(ids), len(Counter(ids))) for shape, ids in seen.weights.items()]
    whole = sum(one.flops for one in found)
    return tuple(one for one in found if one.flops >= SMALL * whole)


Way = Callable[[], object]


class MatrixRate:
    """The products of a call, timed alone in turn with the engines.

    Args:
        products: of the call.
        precisions: float32, int8 or bf16. int8 is left out where ONNX Runtime is not installed.
        threads: compute threads; Torch's are set already.
        device: "cpu" or "cuda".
        clock: seconds; beside other work, one thread's time on its core says more than the wall's.

    Attributes:
        flops: operations of all of them.
    """

    def __init__(
        self,
        products: Sequence[Product],
        precisions: Iterable[str],
        threads: int,
        device: str,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.products = tuple(products)
        self.flops = sum(one.flops for one in products)
        self._ways: dict[tuple[str, str], list[Way]] = {}
        self._taken: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._device, self._clock = device, clock
        onnx = device == "cpu" and all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
        for precision in precisions:
            if precision != "int8":
                kind = torch.float32 if precision == "float32" else torch.bfloat16
                for layout in ("rows", "columns", *(["packed"] if device == "cpu" and packs(kind) else [])):
                    self._ways[precision, layout] = [_in_torch(one, kind, device, layout) for one in products]
            if onnx and precision != "bf16":
                self._ways[precision, "onnx"] = [_in_onnx(one, precision, threads) for one in products]
        self.run()  # to warm up
        self._taken.clear()

    def run(self) -> None:
        """Time each way once."""
        for name, ways in self._ways.items():
            began = self._clock()
            for way in ways:
                way()
            if self._device == "cuda":
                torch.cuda.synchronize()
            self._taken[name].append(self._clock() - began)

    def rates(self) -> dict[str, float]:
        """1e9 operations a second by precision: the fastest way's, its median over the runs."""
        seconds = {name: statistics.median(taken) for name, taken in self._taken.items()}
        fastest = {precision: math.inf for precision, _ in seconds}
        for (precision, _), took in seconds.items():
            fastest[precision] = min(fastest[precision], took)
        return {precision: self.flops / took / 1e9 for precision, took in fastest.items()}


def _in_torch(product: Product, kind: torch.dtype, device: str, layout: str) -> Way:
    """All products of one shape in PyTorch, each weight in rows as `linear` has it, in columns, or packed."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((product.rows, product.inner), *[(product.outer, product.inner)] * min(product.weights, COPIES))
    x, *weights = (torch.randn(shape, generator=generator).to(device, kind) for shape in shapes)
    if layout == "columns":
        weights = [weight.t().contiguous().t() for weight in weights]
    tables = [{"weight": packed(weight) if layout == "packed" else weight, "bias": None} for weight in weights]

    @torch.inference_mode()
    def run() -> None:
        for i in range(product.times):
            linear_of(x, tables[i % len(tables)])

    return run


def _in_onnx(product: Product, precision: str, threads: int) -> Way:
    """All products of one shape in ONNX Runtime, whose session packs the weights at its start.

    A row of each product is handed out, so that none is dropped.
    """
    from onnx import TensorProto, helper, numpy_helper

    from pipeline.models.deploy.segments import session

    generator, count = np.random.default_rng(0), min(product.weights, COPIES)
    whole = precision == "int8"
    given, taken = (np.uint8, np.int8) if whole else (np.float32, np.float32)
    x = (100 * generator.random((product.rows, product.inner))).astype(given)
    shape = (product.inner, product.outer)
    weights = [(100 * generator.random(shape) - 50).astype(taken) for _ in range(count)]
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMulInteger" if whole else "MatMul", ["x", f"w{i}"], [f"y{i}"]))
        nodes.append(helper.make_node("Gather", [f"y{i}", "first"], [f"out{i}"], axis=0))
    kind = TensorProto.INT32 if whole else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.UINT8 if whole else TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info(f"out{i}", kind, [product.outer]) for i in range(count)],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
        + [numpy_helper.from_array(np.array(0), "first")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    opened = session(made.SerializeToString(), threads)

    def run() -> None:
        for _ in range(math.ceil(product.times / count)):
            opened.run(None, {"x": x})

    return run
