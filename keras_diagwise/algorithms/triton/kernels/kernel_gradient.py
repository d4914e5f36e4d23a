"""The kernel gradient."""

import triton
import triton.language as tl

from keras_diagwise.algorithms.triton.kernels.tiles import (
    SIZES,
    is_within,
    place,
    replaced,
    start_of,
    steps_of,
    zeros,
)


@triton.jit(do_not_specialize=SIZES)
def kernel_gradient(
    inputs,
    output_gradient,
    images,
    vectors,
    input_across,
    input_along,
    output_across,
    output_along,
    before_across,
    before_along,
    tiles,
    shares,
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
    TAPS_ACROSS: tl.constexpr,
    TAPS_ALONG: tl.constexpr,
):
    """Shares of the gradient with respect to the kernel, `(shares, taps, filters)`.

    A program sums `TAPS_ACROSS` × `TAPS_ALONG` taps over `tiles` tiles of the outputs,
    in registers. Neighbouring programs sum other taps over the same tiles, so that one
    finds in the cache what another has read. No two programs write to the same place,
    so the sum is deterministic.
    """
    DTYPE: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    channels = vectors * VECTOR
    filters = channels * MULTIPLIER
    strips = tl.cdiv(output_along, UNROLL)
    GROUPS_ACROSS: tl.constexpr = (KERNEL_ACROSS + TAPS_ACROSS - 1) // TAPS_ACROSS
    GROUPS_ALONG: tl.constexpr = (KERNEL_ALONG + TAPS_ALONG - 1) // TAPS_ALONG
    GROUPS: tl.constexpr = GROUPS_ACROSS * GROUPS_ALONG
    program = tl.program_id(0)
    group = program % GROUPS
    first_tap_across = (group // GROUPS_ALONG) * TAPS_ACROSS
    first_tap_along = (group % GROUPS_ALONG) * TAPS_ALONG
    rest = program // GROUPS
    if CHANNELS_LAST:
        blocks = tl.cdiv(filters, WIDTH)
    else:
        blocks = filters
    block = rest % blocks
    share = rest // blocks
    lanes = tl.arange(0, LANES)[:, None]
    columns = tl.arange(0, WIDTH)[None, :]
    step_across, step_along = steps_of(
        channels, input_across, input_along, CHANNELS_LAST
    )
    output_step_across, output_step_along = steps_of(
        filters, output_across, output_along, CHANNELS_LAST
    )
    sums = zeros(TAPS_ACROSS * TAPS_ALONG, LANES, WIDTH, DTYPE)
    for index in range(share * tiles, (share + 1) * tiles):
        if CHANNELS_LAST:
            second = block * WIDTH + columns
            first = index * LANES + lanes
            image, filter, across, strip = place(
                first, second, output_across, strips, CHANNELS_LAST
            )
            exists = (image < images) & (filter < filters)
        else:
            parts = tl.cdiv(output_across, WIDTH)
            across = (index % parts) * WIDTH + columns
            first = (index // parts) * LANES + lanes
            strip = first % strips
            image = first // strips
            filter = block
            exists = (image < images) & (across < output_across)
        start = start_of(
            image,
            filter // MULTIPLIER,
            channels,
            input_across,
            input_along,
            CHANNELS_LAST,
        )
        output_start = start_of(
            image, filter, filters, output_across, output_along, CHANNELS_LAST
        )
        gradients = ()
        for u in tl.static_range(UNROLL):
            along = strip * UNROLL + u
            gradient = tl.load(
                output_gradient
                + output_start
                + across * output_step_across
                + along * output_step_along,
                exists & (along < output_along),
                0.0,
            )
            gradients = gradients + (gradient.to(DTYPE),)
        first_row = across * STRIDE_ACROSS - before_across
        first_row += first_tap_across * DILATION_ACROSS
        first_column = strip * (UNROLL * STRIDE_ALONG) - before_along
        first_column += first_tap_along * DILATION_ALONG
        for i in tl.static_range(TAPS_ACROSS):
            row = first_row + i * DILATION_ACROSS
            row_exists = exists & is_within(row, input_across)
            for r in tl.static_range(
                (UNROLL - 1) * STRIDE_ALONG + (TAPS_ALONG - 1) * DILATION_ALONG + 1
            ):
                column = first_column + r
                pixel = tl.load(
                    inputs + start + row * step_across + column * step_along,
                    row_exists & is_within(column, input_along),
                    0.0,
                ).to(DTYPE)
                for u in tl.static_range(UNROLL):
                    for j in tl.static_range(TAPS_ALONG):
                        if u * STRIDE_ALONG + j * DILATION_ALONG == r:
                            total = tl.fma(
                                pixel, gradients[u], sums[i * TAPS_ALONG + j]
                            )
                            sums = replaced(sums, i * TAPS_ALONG + j, total)

    for i in tl.static_range(TAPS_ACROSS):
        for j in tl.static_range(TAPS_ALONG):
            tap_across = first_tap_across + i
            tap_along = first_tap_along + j
            if CHANNELS_LAST:
                tap = tap_across * KERNEL_ALONG + tap_along
            else:
                tap = tap_along * KERNEL_ACROSS + tap_across
            exists = (tap_across < KERNEL_ACROSS) & (tap_along < KERNEL_ALONG)
            place_of = (share * (KERNEL_ACROSS * KERNEL_ALONG) + tap) * filters
            total = tl.sum(sums[i * TAPS_ALONG + j], 0)
            if CHANNELS_LAST:
                filter = block * WIDTH + tl.arange(0, WIDTH)
                tl.store(shares + place_of + filter, total, exists & (filter < filters))
            else:
                tl.store(shares + place_of + block, tl.sum(total, 0), exists)
