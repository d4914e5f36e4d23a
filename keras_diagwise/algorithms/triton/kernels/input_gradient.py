"""The input gradient."""

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


@triton.jit
def add_kernel_row(
    sums,
    kernel,
    output_gradient,
    start,
    filters,
    filter,
    exists,
    i,
    first_row,
    first_column,
    size_across,
    size_along,
    REST: tl.constexpr,
    KERNEL_ACROSS: tl.constexpr,
    KERNEL_ALONG: tl.constexpr,
    STRIDE_ACROSS: tl.constexpr,
    STRIDE_ALONG: tl.constexpr,
    DILATION_ACROSS: tl.constexpr,
    DILATION_ALONG: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DTYPE: tl.constexpr,
    UNROLL: tl.constexpr,
    PHASE_ACROSS: tl.constexpr,
    PHASE_ALONG: tl.constexpr,
):
    """The sums of an input gradient, plus the terms of the kernel row `i`.

    Args:
        REST: `i` modulo the stride across, which determines the neighbours it reaches.
    """
    FIRST: tl.constexpr = PHASE_ALONG - (KERNEL_ALONG - 1) * DILATION_ALONG
    LAST: tl.constexpr = UNROLL - 1 + PHASE_ALONG
    step_across, step_along = steps_of(filters, size_across, size_along, CHANNELS_LAST)
    for v in tl.static_range(STRIDE_ACROSS):
        if (v + PHASE_ACROSS - REST * DILATION_ACROSS) % STRIDE_ACROSS == 0:
            distance = v + PHASE_ACROSS - i * DILATION_ACROSS
            row = first_row + distance // STRIDE_ACROSS
            row_exists = exists & is_within(row, size_across)
            weights = ()
            for e in tl.static_range(FIRST // STRIDE_ALONG, LAST // STRIDE_ALONG + 1):
                column = first_column + e
                pixel = tl.load(
                    output_gradient + start + row * step_across + column * step_along,
                    row_exists & is_within(column, size_along),
                    0.0,
                ).to(DTYPE)
                for n in tl.static_range(KERNEL_ALONG):
                    if (
                        PHASE_ALONG
                        - (KERNEL_ALONG - 1 - n) * DILATION_ALONG
                        + STRIDE_ALONG
                        - 1
                    ) // STRIDE_ALONG == e:
                        weight = weight_of(
                            kernel,
                            i,
                            KERNEL_ALONG - 1 - n,
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
                        if u + PHASE_ALONG - j * DILATION_ALONG == e * STRIDE_ALONG:
                            weight = weights[KERNEL_ALONG - 1 - j]
                            total = tl.fma(pixel, weight, sums[v * UNROLL + u])
                            sums = replaced(sums, v * UNROLL + u, total)
    return sums


@triton.jit(do_not_specialize=SIZES[:-1])
def input_gradient(
    kernel,
    output_gradient,
    images,
    vectors,
    input_across,
    input_along,
    output_across,
    output_along,
    before_across,
    before_along,
    gradient,
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
    LOOPED: tl.constexpr,
    PHASE_ACROSS: tl.constexpr,
    PHASE_ALONG: tl.constexpr,
):
    """The gradient with respect to the inputs.

    A lane computes `STRIDE_ACROSS` × `UNROLL` neighbours, and `UNROLL` is a multiple of
    `STRIDE_ALONG`: the index of a neighbour determines which taps reach it, so that no
    product is wasted on the zeros that a stride would put between the output's pixels.
    The zeros before the input are `before` × stride + `PHASE`.
    """
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    channels = vectors * VECTOR
    filters = channels * MULTIPLIER
    strips = tl.cdiv(input_along, UNROLL)
    bands = tl.cdiv(input_across, STRIDE_ACROSS)
    if CHANNELS_LAST:
        middle, inner = bands, channels
    else:
        middle, inner = channels, bands
    first, second = tile_of_program(inner, LANES, WIDTH)
    image, channel, band, strip = place(first, second, middle, strips, CHANNELS_LAST)
    exists = (image < images) & (second < inner)

    first_column = strip * (UNROLL // STRIDE_ALONG) + before_along
    sums = zeros(STRIDE_ACROSS * UNROLL, LANES, WIDTH, DTYPE)
    for m in tl.static_range(MULTIPLIER):
        filter = channel * MULTIPLIER + m
        start = start_of(
            image, filter, filters, output_across, output_along, CHANNELS_LAST
        )
        if LOOPED:
            for group in range((KERNEL_ACROSS + STRIDE_ACROSS - 1) // STRIDE_ACROSS):
                for rest in tl.static_range(STRIDE_ACROSS):
                    i = group * STRIDE_ACROSS + rest
                    sums = add_kernel_row(
                        sums,
                        kernel,
                        output_gradient,
                        start,
                        filters,
                        filter,
                        exists & (i < KERNEL_ACROSS),
                        i,
                        band + before_across,
                        first_column,
                        output_across,
                        output_along,
                        rest,
                        KERNEL_ACROSS,
                        KERNEL_ALONG,
                        STRIDE_ACROSS,
                        STRIDE_ALONG,
                        DILATION_ACROSS,
                        DILATION_ALONG,
                        CHANNELS_LAST,
                        DTYPE,
                        UNROLL,
                        PHASE_ACROSS,
                        PHASE_ALONG,
                    )
        else:
            for i in tl.static_range(KERNEL_ACROSS):
                sums = add_kernel_row(
                    sums,
                    kernel,
                    output_gradient,
                    start,
                    filters,
                    filter,
                    exists,
                    i,
                    band + before_across,
                    first_column,
                    output_across,
                    output_along,
                    i % STRIDE_ACROSS,
                    KERNEL_ACROSS,
                    KERNEL_ALONG,
                    STRIDE_ACROSS,
                    STRIDE_ALONG,
                    DILATION_ACROSS,
                    DILATION_ALONG,
                    CHANNELS_LAST,
                    DTYPE,
                    UNROLL,
                    PHASE_ACROSS,
                    PHASE_ALONG,
                )

    start = start_of(image, channel, channels, input_across, input_along, CHANNELS_LAST)
    step_across, step_along = steps_of(
        channels, input_across, input_along, CHANNELS_LAST
    )
    for v in tl.static_range(STRIDE_ACROSS):
        for u in tl.static_range(UNROLL):
            across = band * STRIDE_ACROSS + v
            along = strip * UNROLL + u
            tl.store(
                gradient + start + across * step_across + along * step_along,
                sums[v * UNROLL + u].to(gradient.dtype.element_ty),
                exists & (across < input_across) & (along < input_along),
            )
