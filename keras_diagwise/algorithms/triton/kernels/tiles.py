"""Tiles: their places, offsets in memory, sums and weights; for all kernels."""

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
