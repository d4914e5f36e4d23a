"""`native`: the operation that Keras calls, and its backend's derivatives."""

from __future__ import annotations

import dataclasses

import keras

from keras_diagwise import backends
from keras_diagwise.algorithms.algorithm import Algorithm


@dataclasses.dataclass(frozen=True)
class Native(Algorithm):
    """The stock convolution of the active backend, or a dense layer's product."""

    name = "native"
    revision = 1

    def forward(self, problem, inputs, kernel):
        if problem.operation == "matmul":
            kernel = keras.ops.reshape(kernel, (problem.channels, problem.filters))
            return keras.ops.matmul(inputs, kernel)
        arguments = {
            "strides": problem.strides,
            "padding": problem.padding,
            "data_format": problem.data_format,
            "dilation_rate": problem.dilation_rate,
        }
        if problem.is_depthwise and problem.rank < 3:
            shape = (*problem.kernel_size, problem.groups, problem.filters_per_group)
            kernel = keras.ops.reshape(kernel, shape)
            return keras.ops.depthwise_conv(inputs, kernel, **arguments)
        return keras.ops.conv(inputs, kernel, **arguments)

    def input_gradient(self, problem, kernel, output_gradient):
        return backends.active.native_input_gradient(
            self.forward, problem, kernel, output_gradient
        )

    def kernel_gradient(self, problem, inputs, output_gradient):
        return backends.active.native_kernel_gradient(
            self.forward, problem, inputs, output_gradient
        )

    def refusal(self, problem):
        return backends.active.native_refusal(problem)

    @classmethod
    def parse(cls, parameters):
        if parameters:
            raise ValueError(
                "`native` takes no parameters. "
                f"Received: {':'.join(['native', *parameters])!r}"
            )
        return cls()

    @classmethod
    def candidates(cls, problem, pass_name):
        yield cls()
