"""Files, exports, derivatives and transformations: what works on each backend.

The tests check every cell, including those that say that stock Keras can't; the
compatibility page prints the tables.
"""

from __future__ import annotations

import dataclasses

from keras_diagwise.backends import INFERENCE_ONLY, TRAINING, keras_internals


@dataclasses.dataclass(frozen=True)
class Cell:
    """A behaviour on one backend: it works, unless `neither` is given.

    Attributes:
        said: the call that a user writes.
        needs: modules required besides the backend's.
        neither: why neither stock nor the package can.
        stock_cant: why stock can't for grouped convolutions, where the package can.
        by_stock: whether the stock operation runs under every plan.
        since: the first version of Keras that can, if not every supported one.
    """

    said: str = ""
    needs: tuple[str, ...] = ()
    neither: str = ""
    stock_cant: str = ""
    by_stock: bool = False
    since: tuple[int, int] = (0, 0)

    @property
    def is_refused(self) -> bool:
        """Whether the installed Keras can't."""
        return bool(self.neither) or self.since > keras_internals.VERSION

    def __str__(self) -> str:
        said = f"{self.said}: " if self.said else ""
        if self.neither:
            return f"{said}stock can't either, {self.neither}"
        how = ", by stock's own operation" if self.by_stock else ""
        with_ = f", with {' and '.join(self.needs)}" if self.needs else ""
        alone = f"; stock can't: {self.stock_cant}" if self.stock_cant else ""
        first = ".".join(map(str, self.since))
        since = f", since Keras {first}" if any(self.since) else ""
        return f"{said}works{how}{with_}{since}{alone}"


Row = dict[str, Cell]


def row(*cells: str | Cell, backends: tuple[str, ...] = TRAINING) -> Row:
    """A behaviour, by backend."""
    whole = (Cell(cell) if isinstance(cell, str) else cell for cell in cells)
    return dict(zip(backends, whole, strict=True))


def native(said: str) -> Cell:
    """A transformation for which torch supports no custom functions."""
    return Cell(said, by_stock=True)


def lost(said: str) -> Cell:
    """A map on TensorFlow: stock's grouped convolution is compiled by XLA, but not in
    the map, and without XLA it has no kernel on CPU (Keras 3.15.1, TensorFlow 2.21)."""
    return Cell(said, stock_cant="no grouped kernel on CPU")


DERIVATIVES = {
    "gradient": row("`jax.grad`", "`tf.GradientTape`", "`torch.autograd.grad`"),
    "second order": row(
        "`jax.grad` twice", "`tf.GradientTape` twice", "`create_graph=True`"
    ),
    "forward mode": row(
        "`jax.jvp`",
        "`tf.autodiff.ForwardAccumulator`",
        native("`torch.func.jvp`, `torch.autograd.forward_ad`"),
    ),
    "forward over reverse": row(
        "`jax.jvp` of `jax.grad`",
        "`ForwardAccumulator` over `tf.GradientTape`",
        native("`torch.func.jvp` of `torch.func.grad`"),
    ),
    "Hessian": row(
        "`jax.hessian`", lost("`tape.jacobian`"), native("`torch.func.hessian`")
    ),
    "map, channels last": row(
        "`jax.vmap`",
        "`tf.vectorized_map`",
        Cell("`torch.func.vmap`", neither="`vmap` of torch 2.13 lacks channels last"),
    ),
    "map, channels first": row(
        "`jax.vmap`", lost("`tf.vectorized_map`"), native("`torch.func.vmap`")
    ),
    "map over kernels": row(
        "`jax.vmap`", "`tf.vectorized_map`", native("`torch.func.vmap`")
    ),
    "gradient of each example": row(
        "`jax.vmap` of `jax.grad`",
        lost("`tf.vectorized_map` of a gradient"),
        native("`torch.func.vmap` of `torch.func.grad`"),
    ),
    "checkpoint": row(
        "`jax.checkpoint`", "`tf.recompute_grad`", "`torch.utils.checkpoint`"
    ),
    "remat": row("`keras.remat`", "`keras.remat`", "`keras.remat`"),
    "compiled": row("`jax.jit`", "`tf.function`", "`torch.compile`"),
    "compiled whole": row(
        "`jax.jit`, ahead of time",
        "`tf.function(jit_compile=True)`",
        "`torch.compile(fullgraph=True)`",
    ),
    "compiled map": row(
        "`jax.jit` of `jax.vmap`",
        "`tf.function` of `tf.vectorized_map`",
        native("`torch.compile(fullgraph=True)` of `torch.func.vmap`"),
    ),
    "compiled forward mode": row(
        "`jax.jit` of `jax.jvp`",
        "`tf.function` of `ForwardAccumulator`",
        native("`torch.compile(fullgraph=True)` of `torch.func.jvp`"),
    ),
    "unknown spatial shape": row(
        Cell("`jax.export.symbolic_shape`", by_stock=True),
        Cell("`tf.function(input_signature=…)`", by_stock=True),
        native("`torch.compile(dynamic=True)`"),
    ),
}
"""Derivatives and transformations of functions and layers, depthwise and grouped, under
any plan."""

REFUSED = Cell(neither="Keras 3.15 refuses")
OF_TORCH = Cell(neither="Keras 3.15 writes a torch class into the file")
ONNX = [
    ("jax2onnx", "onnxruntime"),
    ("tf2onnx", "onnxruntime"),
    ("onnxscript", "onnxruntime"),
]

FILES = {
    "`.keras`, where only `keras_diagwise` was imported": row("", "", ""),
    "`.keras` of JAX": row("", "", ""),
    "`.keras` of TensorFlow": row("", "", ""),
    "`.keras` of torch": row("", "", ""),
    "`.keras` of JAX, with its optimizer": row("", "", ""),
    "`.keras` of TensorFlow, with its optimizer": row("", "", ""),
    "`.keras` of torch, with its optimizer": row(*[OF_TORCH] * 2, ""),
    "`.weights.h5` of stock": row("", "", ""),
    "`.weights.h5` for stock": row("", "", ""),
    "`clone_model`": row("", "", ""),
    "`from_config`": row("", "", ""),
    "`copy.copy`": row("", "", ""),
    "`copy.deepcopy`": row("", "", ""),
    "`pickle`": row(*["where `keras_diagwise` was imported"] * 3),
    "SavedModel": row(
        Cell(needs=("tensorflow",)),
        "",
        Cell(needs=("tensorflow",), neither="Keras 3.15 fails with torch 2.13"),
    ),
    "TFLite": row(
        REFUSED, Cell(since=(3, 13)), Cell(needs=("litert_torch",), since=(3, 15))
    ),
    "ONNX": row(*(Cell(needs=needs) for needs in ONNX)),
    "ONNX, groups": row(
        Cell(needs=ONNX[0]),
        Cell(
            "with an explicit plan",
            needs=ONNX[1],
            stock_cant="Keras's compiled grouped convolution has no ONNX form",
        ),
        Cell(needs=ONNX[2]),
    ),
    "torch program": row(*[REFUSED] * 2, Cell(since=(3, 15))),
}
"""Files and exports of converted models, under any plan."""

INFERENCE = {
    "convert, predict, save, load, revert": row(
        Cell(needs=("jax",)), Cell(needs=("openvino",)), backends=INFERENCE_ONLY
    ),
    "train": row(*[REFUSED] * 2, backends=INFERENCE_ONLY),
}
