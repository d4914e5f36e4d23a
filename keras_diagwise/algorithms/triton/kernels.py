"""The three passes of a depthwise convolution of rank 2, in Triton.

In the kernels, `along` is the spatial axis along which one lane computes several
neighbours, `UNROLL` of them, and `across` is the other. Channels last: lanes hold
neighbouring channels, and `along` is the width. Channels first: lanes hold neighbouring
columns, and `along` is the height.

A tile is `(LANES, WIDTH)`, and its second axis is contiguous in memory. Products are
summed in float32, or in float64 for float64 operands. Only the geometry of the kernel
is compiled in; sizes are arguments, so that a model needs only a few programs. The
number of channels is given in units of `VECTOR`, from which the compiler infers how
wide a load may be.
"""

import triton
import triton.language as tl

SIZES = [
    *("images", "vectors", "input_across", "input_along"),
    *("output_across", "output_along", "before_across", "before_along", "tiles"),
]
"""Arguments whose values do not specialize a program."""


@triton.jit
def place(first, second, middle, strips, CHANNELS_LAST: tl.constexpr):
    """The position of a tile: image, channel, index across, strip along.

    Args:
        first: `(LANES, 1)`: from the outermost, image, index in `middle`, strip.
        second: `(1, WIDTH)`: index along the axis that is innermost in memory.
        middle: the size of the axis between image and strip.
        strips: number of strips.
    """
    strip = first % strips
    between = (first // strips) % middle
    image = (first // strips) // middle
    if CHANNELS_LAST:
        return image, second, between, strip
    else:
        return image, between, second, strip


@triton.jit
def tile_of_program(inner, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """The arguments of `place` for the tile of this program; `inner` is the size of the
    axis that is innermost in memory."""
    blocks = tl.cdiv(inner, WIDTH)
    program = tl.program_id(0)
    first = (program // blocks) * LANES + tl.arange(0, LANES)[:, None]
    second = (program % blocks) * WIDTH + tl.arange(0, WIDTH)[None, :]
    return first, second


@triton.jit
def start_of(image, channel, channels, across, along, CHANNELS_LAST: tl.constexpr):
    """Offset of a channel of an image, which has `across` × `along` pixels."""
    pixels = across * along
    if CHANNELS_LAST:
        return image.to(tl.int64) * (pixels * channels) + channel
    else:
        return image.to(tl.int64) * (pixels * channels) + channel * pixels


@triton.jit
def steps_of(channels, across, along, CHANNELS_LAST: tl.constexpr):
    """Strides in memory, across and along."""
    if CHANNELS_LAST:
        return along * channels, channels
    else:
        return 1, across


@triton.jit
def is_within(index, size):
    """Whether an index is within an axis of a size: a negative one is a large unsigned
    number, so one comparison suffices."""
    return index.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def replaced(tiles, INDEX: tl.constexpr, tile):
    """The tiles with the one at an index replaced."""
    return tiles[:INDEX] + (tile,) + tiles[INDEX + 1 :]


@triton.jit
def zeros(COUNT: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr, dtype):
    """`COUNT` tiles of zeros."""
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros((LANES, WIDTH), dtype),)
    return tiles


@triton.jit
def weight_of(
    kernel,
    i,
    j,
    filters,
    filter,
    exists,
    KERNEL_ACROSS: tl.constexpr,
    KERNEL_ALONG: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    dtype,
):
    """The weights of the tap `i` across, `j` along."""
    if CHANNELS_LAST:
        tap = i * KERNEL_ALONG + j
    else:
        tap = j * KERNEL_ACROSS + i
    return tl.load(kernel + tap * filters + filter, exists, 0.0).to(dtype)


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
