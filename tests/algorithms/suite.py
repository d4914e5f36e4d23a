"""What holds for every algorithm: each one's test file inherits it."""

import contextlib
import dataclasses
import functools
import re
from typing import ClassVar

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st

from keras_diagwise import backends
from keras_diagwise.algorithms import Native
from keras_diagwise.plan import Plan
from keras_diagwise.planning.planned_convolution import PlannedConvolution
from keras_diagwise.problem import PASSES, Problem
from tests import reference
from tests.derivatives import compiled_tensorflow_vjp, vjp
from tests.strategies import problems, tensors, to_backend, to_numpy


def depthwise(spatial_shape, channels, kernel_size, **fields) -> Problem:
    """A depthwise problem, with the fields that matter to a test named."""
    rank = len(spatial_shape)
    values = {
        "batch": 2,
        "filters_per_group": 1,
        "strides": (1,) * rank,
        "padding": "same",
        "dilation_rate": (1,) * rank,
        "data_format": "channels_last",
        "dtype": "float32",
        **fields,
    }
    return Problem(
        spatial_shape=spatial_shape,
        groups=channels,
        channels_per_group=1,
        kernel_size=kernel_size,
        **values,
    )


def dense(spatial_shape, channels, filters, kernel_size, **fields) -> Problem:
    """A problem of one group, with the fields that matter to a test named."""
    single = depthwise(spatial_shape, 1, kernel_size, **fields)
    return dataclasses.replace(
        single, channels_per_group=channels, filters_per_group=filters
    )


def dense_layer(spatial_shape, channels, units, batch=2, dtype="float32") -> Problem:
    """The problem of a dense layer over pixels."""
    shape = (batch, *spatial_shape, channels)
    return Problem.of_dense_layer(shape, (channels, units), dtype=dtype)


EDGES = {
    "one image": depthwise((7, 6), 5, (3, 3), batch=1),
    "empty batch": depthwise((5, 5), 4, (3, 3), batch=0),
    "empty batch, multiplied": depthwise(
        (5, 5), 4, (3, 3), batch=0, filters_per_group=2
    ),
    "empty batch, strided": depthwise((2,), 1, (1,), batch=0, strides=(2,)),
    "one pixel": depthwise((1, 1), 6, (3, 3)),
    "kernel larger than the input": depthwise((2, 3), 4, (5, 7)),
    "kernel larger than the input, strided": depthwise(
        (2, 3), 4, (5, 7), strides=(2, 2)
    ),
    "unequal strides": depthwise((9, 8), 4, (3, 3), strides=(1, 2)),
    "unequal strides, one channel and column": depthwise(
        (3, 1), 1, (4, 4), batch=1, strides=(1, 3)
    ),
    "stride with dilation": depthwise(
        (11, 9), 4, (3, 3), strides=(2, 2), dilation_rate=(2, 2)
    ),
    "stride with dilation, valid": depthwise(
        (11, 9), 4, (3, 3), strides=(2, 2), dilation_rate=(2, 2), padding="valid"
    ),
    "stride beyond the kernel": depthwise(
        (9, 9), 4, (2, 2), strides=(3, 3), padding="valid"
    ),
    "depth multiplier": depthwise((6, 7), 4, (3, 3), filters_per_group=3),
    "channels first": depthwise((6, 7), 4, (3, 3), data_format="channels_first"),
    "channels first, strided, multiplied": depthwise(
        (6, 7),
        4,
        (3, 3),
        data_format="channels_first",
        strides=(2, 2),
        filters_per_group=2,
    ),
    "one dimension": depthwise((17,), 4, (4,)),
    "one dimension, strided": depthwise((17,), 4, (5,), strides=(3,)),
    "one dimension, channels first, dilated": depthwise(
        (17,), 4, (3,), dilation_rate=(2,), data_format="channels_first"
    ),
    "three dimensions": depthwise((5, 4, 3), 4, (3, 2, 3)),
    "three dimensions, strides beyond the kernel": depthwise(
        (1, 3, 1), 1, (1, 1, 1), batch=1, strides=(1, 3, 1), dtype="float64"
    ),
    "three dimensions, one channel and column": depthwise(
        (4, 4, 1), 1, (3, 3, 3), strides=(2, 1, 3), filters_per_group=2
    ),
    "groups of several channels": Problem(
        2, (6, 5), 3, 2, 4, (3, 3), (1, 1), "same", (1, 1), "channels_last", "float32"
    ),
    "float16": depthwise((6, 7), 4, (3, 3), dtype="float16"),
    "bfloat16": depthwise((6, 7), 4, (3, 3), dtype="bfloat16"),
    "bfloat16, one column, strided": depthwise(
        (6, 3), 1, (3, 3), strides=(1, 3), filters_per_group=16, dtype="bfloat16"
    ),
    "bfloat16, one tap, unequal strides": depthwise(
        (8, 8), 8, (1, 1), strides=(1, 2), dtype="bfloat16"
    ),
    "one tap, unequal strides": depthwise((8, 6), 8, (1, 1), strides=(1, 2)),
    "bfloat16, three dimensions, padded": depthwise(
        (2, 3, 2), 2, (3, 1, 3), dtype="bfloat16", filters_per_group=2
    ),
    "bfloat16, three dimensions, strided": depthwise(
        (3, 1, 1), 1, (1, 3, 1), batch=1, strides=(1, 2, 1), dtype="bfloat16"
    ),
    "float64": depthwise((6, 7), 4, (3, 3), dtype="float64"),
    "many rows": depthwise((37, 6), 3, (3, 3)),
    "many rows, strided": depthwise((37, 6), 3, (3, 3), strides=(2, 2)),
    "many columns": depthwise((6, 40), 3, (3, 3)),
    "many columns, strided, larger kernel": depthwise(
        (23, 61), 3, (5, 5), strides=(2, 2)
    ),
    "large kernel": depthwise((12, 13), 3, (7, 7)),
    "large kernel, strided": depthwise((13, 12), 3, (7, 7), strides=(2, 2)),
    "large kernel, channels first, unequal strides, multiplied": depthwise(
        (14, 13),
        2,
        (8, 7),
        strides=(2, 3),
        filters_per_group=2,
        data_format="channels_first",
    ),
    "tall": depthwise((64, 2), 3, (5, 1)),
    "huge kernel": depthwise((20, 19), 3, (13, 15)),
    "huge kernel, strided, multiplied": depthwise(
        (21, 20), 2, (11, 13), strides=(2, 2), filters_per_group=2
    ),
    "huge kernel, channels first, dilated": depthwise(
        (26, 11), 2, (13, 11), dilation_rate=(2, 1), data_format="channels_first"
    ),
    "huge kernel, one dimension": depthwise((150,), 2, (131,)),
    "huge kernel, three dimensions": depthwise((6, 5, 7), 2, (6, 5, 5)),
    "dense": dense((7, 6), 5, 3, (3, 3)),
    "dense, even kernel, strided, valid": dense(
        (9, 8), 2, 3, (4, 2), strides=(2, 3), padding="valid"
    ),
    "dense, one tap": dense((6, 5), 3, 4, (1, 1)),
    "dense, one tap, strided": dense((7, 5), 3, 4, (1, 1), strides=(2, 3)),
    "dense, dilated": dense((9, 8), 3, 2, (3, 3), dilation_rate=(2, 3)),
    "dense, channels first, strided": dense(
        (8, 7), 3, 2, (3, 3), strides=(2, 2), data_format="channels_first"
    ),
    "dense, one dimension": dense((17,), 3, 4, (5,), strides=(2,)),
    "dense, three dimensions": dense((5, 4, 3), 3, 2, (3, 2, 3)),
    "dense, empty batch": dense((5, 5), 4, 3, (3, 3), batch=0),
    "dense, kernel larger than the input": dense((2, 3), 4, 3, (5, 7)),
    "dense, bfloat16": dense((6, 7), 4, 3, (3, 3), dtype="bfloat16"),
    "dense, float16, one tap": dense((6, 7), 4, 3, (1, 1), dtype="float16"),
    "dense, float64": dense((6, 7), 4, 3, (3, 3), dtype="float64"),
    "dense layer": dense_layer((6, 7), 4, 3),
    "dense layer, one dimension, bfloat16": dense_layer((9,), 4, 3, dtype="bfloat16"),
    "dense layer, three dimensions": dense_layer((3, 4, 2), 4, 3),
    "dense layer, empty batch": dense_layer((6, 7), 4, 3, batch=0),
}


class AlgorithmSuite:
    """Subclasses give `algorithms`: the instances to test, and may say how many groups
    the problems have that are drawn."""

    algorithms: ClassVar[list]
    groups: ClassVar = None

    def wide(self, spatial_shape, kernel_size, **fields) -> Problem:
        """A problem of many channels that the algorithms can compute."""
        return depthwise(spatial_shape, 32, kernel_size, **fields)

    def pick(self, problem):
        """The instances that fit a problem and can compute it."""
        found = []
        for algorithm in self.algorithms:
            try:
                algorithm.check(problem)
            except ValueError:
                continue
            if algorithm.refusal(problem) is None:
                found.append(algorithm)
        return found

    @pytest.mark.parametrize("problem", EDGES.values(), ids=EDGES)
    def test_equals_the_reference_at_the_edges(self, problem):
        for algorithm in self.pick(problem):
            check_against_reference(algorithm, problem)

    @pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="as above")
    @pytest.mark.parametrize("problem", EDGES.values(), ids=EDGES)
    def test_edges_equal_the_reference_under_xla(self, problem):
        compiled = functools.partial(compiled_tensorflow_vjp, jit_compile=True)
        for algorithm in self.pick(problem)[-2:]:
            check_against_reference(algorithm, problem, vjp=compiled)

    @hypothesis.given(st.data())
    def test_equals_the_reference(self, data):
        problem = data.draw(problems(groups=self.groups))
        algorithms = self.pick(problem)
        hypothesis.assume(algorithms)
        algorithm = data.draw(st.sampled_from(algorithms))
        check_against_reference(algorithm, problem)

    @hypothesis.given(data=st.data(), seed=st.integers(0, 9))
    @hypothesis.settings(max_examples=8)
    def test_passes_are_adjoint(self, data, seed):
        """⟨conv(x, k), g⟩ = ⟨x, input_gradient(k, g)⟩ = ⟨k, kernel_gradient(x, g)⟩."""
        problem = data.draw(problems(dtypes=("float64",), groups=self.groups))
        for algorithm in self.pick(problem)[:2]:
            x, k, g = to_backend(tensors(problem, seed), "float64")
            outputs = to_numpy(algorithm.forward(problem, x, k))
            by_inputs = to_numpy(algorithm.input_gradient(problem, k, g))
            by_kernel = to_numpy(algorithm.kernel_gradient(problem, x, g))
            x, k, g = map(to_numpy, (x, k, g))
            scale = np.linalg.norm(outputs) * np.linalg.norm(g) + 1
            assert abs(np.vdot(outputs, g) - np.vdot(x, by_inputs)) < 1e-11 * scale
            assert abs(np.vdot(outputs, g) - np.vdot(k, by_kernel)) < 1e-11 * scale

    @hypothesis.given(data=st.data())
    @hypothesis.settings(max_examples=5)
    def test_passes_are_linear_in_each_operand(self, data):
        problem = data.draw(problems(dtypes=("float64",), groups=self.groups))
        for algorithm in self.pick(problem)[:1]:
            x, k, g = to_backend(tensors(problem, 1), "float64")
            u, v, w = to_backend(tensors(problem, 2), "float64")
            operands = {
                "forward": ((x, u), (k, v)),
                "input_gradient": ((k, v), (g, w)),
                "kernel_gradient": ((x, u), (g, w)),
            }
            for name, ((a, b), (c, d)) in operands.items():
                compute = getattr(algorithm, name)

                def run(left, right, compute=compute):
                    return to_numpy(compute(problem, left, right))

                np.testing.assert_allclose(
                    run(2 * a - 3 * b, c), 2 * run(a, c) - 3 * run(b, c), atol=1e-10
                )
                np.testing.assert_allclose(
                    run(a, 2 * c - 3 * d), 2 * run(a, c) - 3 * run(a, d), atol=1e-10
                )

    @pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX shards so")
    @pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 1)])
    @pytest.mark.parametrize("pass_name", PASSES)
    def test_batch_sharding_adds_no_collectives(self, pass_name, kernel, stride):
        """Sharding the batch adds no communication to any algorithm that serves there.

        An algorithm that would add some refuses.
        """
        sizes = {"batch": 8, "strides": (stride,) * 2}
        problem = self.wide((24, 24), (kernel,) * 2, **sizes)
        stock = collectives(Native(), problem, pass_name)
        with data_parallel():
            serving = self.pick(problem)
        for algorithm in serving:
            ours = collectives(algorithm, problem, pass_name)
            assert set(ours) <= set(stock), str(algorithm)
            assert sum(ours.values()) <= sum(stock.values()), str(algorithm)


def check_against_reference(algorithm, problem, seed=0, vjp=vjp):
    arrays = tensors(problem, seed)
    exact = reference.passes(problem, *arrays)
    accumulator = reference.summed_in(algorithm, problem.dtype)
    bounds = reference.bounds(problem, *arrays, accumulator)
    inputs, kernel, output_gradient = to_backend(arrays, problem.dtype)
    plan = Plan(algorithm, algorithm, algorithm)
    convolution = PlannedConvolution(problem, plan)
    value, gradients = vjp(
        lambda x, k: backends.active.differentiable(convolution, x, k),
        [inputs, kernel],
        output_gradient,
    )
    for name, computed in zip(PASSES, (value, *gradients), strict=True):
        assert keras.backend.standardize_dtype(computed.dtype) == problem.dtype
        computed = to_numpy(computed).astype("float64")
        expected, bound = getattr(exact, name), getattr(bounds, name)
        assert computed.shape == expected.shape, (name, str(algorithm))
        excess = np.abs(computed - expected) - bound
        assert not computed.size or excess.max() <= 0, (
            f"{name} of {algorithm} on {problem}: off by "
            f"{np.abs(computed - expected).max()}"
        )


@contextlib.contextmanager
def data_parallel():
    """`keras.distribution.DataParallel` over two virtual devices."""
    devices = ["cpu:0", "cpu:1"]
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(None)


def collectives(algorithm, problem, pass_name):
    """Bytes by kind of collective in a compiled pass, its batch on two devices."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    mesh = jax.sharding.Mesh(jax.devices()[:2], ("batch",))
    sharded, replicated = (
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("batch",), ())
    )
    operands = {
        "forward": (
            (problem.input_shape(), sharded),
            (problem.kernel_shape, replicated),
        ),
        "input_gradient": (
            (problem.kernel_shape, replicated),
            (problem.output_shape(), sharded),
        ),
        "kernel_gradient": (
            (problem.input_shape(), sharded),
            (problem.output_shape(), sharded),
        ),
    }[pass_name]
    result = replicated if pass_name == "kernel_gradient" else sharded

    @jax.jit
    def run(left, right):
        outcome = getattr(algorithm, pass_name)(problem, left, right)
        return jax.lax.with_sharding_constraint(outcome, result)

    text = (
        run.lower(
            *[jax.ShapeDtypeStruct(s, problem.dtype, sharding=w) for s, w in operands]
        )
        .compile()
        .as_text()
    )
    found = {}
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        sizes = re.findall(r"f32\[([\d,]*)\]", shapes)
        found[kind] = found.get(kind, 0) + sum(
            4 * int(np.prod([int(n) for n in s.split(",") if n])) for s in sizes
        )
    return found
