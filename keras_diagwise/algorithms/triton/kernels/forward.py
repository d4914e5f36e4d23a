"""The forward pass."""

import triton
import triton.language as tl

from keras_diagwise.algorithms.triton.kernels.tiles import (
    SIZES,
    is_within,
    place,
    replaced,
    start_of,
    steps_of,
    tile_of_program,
    weight_of,
    zeros,
)


@triton.jit(do_not_specialize=SIZES[:-1])
def forward(
    inputs,
    kernel,
    images,
    vectors,
    input_across,
    input_along,
    output_across,
    output_along,
    before_across,
    before_along,
    outputs,
    MULTIPLIER: tl.constexpr,
    KERNEL_ACROSS: tl.constexpr,
    KERNEL_ALONG: tl.constexpr,
    STRIDE_ACROSS: tl.constexpr,
    STRIDE_ALONG: tl.constexpr,
    DILATION_ACROSS: tl.constexpr,
    DILATION_ALONG: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    VECTOR: tl.constexpr,
    DOUBLE: tl.constexpr,
    UNROLL: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """The outputs, in a loop over kernel rows, unrolled by `ROWS`."""
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    channels = vectors * VECTOR
    filters = channels * MULTIPLIER
    strips = tl.cdiv(output_along, UNROLL)
    if CHANNELS_LAST:
        middle, inner = output_across, filters
    else:
        middle, inner = filters, output_across
    first, second = tile_of_program(inner, LANES, WIDTH)
    image, filter, across, strip = place(first, second, middle, strips, CHANNELS_LAST)
    exists = (image < images) & (second < inner)

    channel = filter // MULTIPLIER
    start = start_of(image, channel, channels, input_across, input_along, CHANNELS_LAST)
    step_across, step_along = steps_of(
        channels, input_across, input_along, CHANNELS_LAST
    )
    first_column = strip * (UNROLL * STRIDE_ALONG) - before_along
    sums = zeros(UNROLL, LANES, WIDTH, DTYPE)
    for i in tl.range(0, KERNEL_ACROSS, loop_unroll_factor=ROWS):
        weights = ()
        row = across * STRIDE_ACROSS - before_across + i * DILATION_ACROSS
        row_exists = exists & is_within(row, input_across)
        for r in tl.static_range(
            (UNROLL - 1) * STRIDE_ALONG + (KERNEL_ALONG - 1) * DILATION_ALONG + 1
        ):
            column = first_column + r
            pixel_exists = row_exists & is_within(column, input_along)
            pixel = tl.load(
                inputs + start + row * step_across + column * step_along,
                pixel_exists,
                0.0,
            ).to(DTYPE)
            for j in tl.static_range(KERNEL_ALONG):
                if j * DILATION_ALONG == r:
                    weight = weight_of(
                        kernel,
                        i,
                        j,
                        filters,
                        filter,
                        exists,
                        KERNEL_ACROSS,
                        KERNEL_ALONG,
                        CHANNELS_LAST,
                        DTYPE,
                    )
                    weights = weights + (weight,)
            for u in tl.static_range(UNROLL):
                for j in tl.static_range(KERNEL_ALONG):
                    if u * STRIDE_ALONG + j * DILATION_ALONG == r:
                        total = tl.fma(pixel, weights[j], sums[u])
                        sums = replaced(sums, u, total)

    start = start_of(image, filter, filters, output_across, output_along, CHANNELS_LAST)
    step_across, step_along = steps_of(
        filters, output_across, output_along, CHANNELS_LAST
    )
    for u in tl.static_range(UNROLL):
        along = strip * UNROLL + u
        tl.store(
            outputs + start + across * step_across + along * step_along,
            sums[u].to(outputs.dtype.element_ty),
            exists & (along < output_along),
        )
