"""Ratios of interleaved timings, with confidence bounds."""

from __future__ import annotations

import functools
import math
import statistics

import numpy as np

from keras_diagwise.tuner import measure

lower_bound = functools.partial(measure.lower_bound, resamples=2000)


TOUCHED = 2**31


def touch_memory() -> None:
    """Writes and frees 2 GiB before anything is timed: the host of a newly started
    virtual machine backs memory only when it is first written."""
    np.ones(TOUCHED, "uint8").sum()


def geometric_mean(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def upper_bound(ratios) -> float:
    """Upper 95 % bootstrap bound of the median of paired ratios."""
    return 1 / lower_bound([1 / ratio for ratio in ratios])


def compared(samples) -> dict:
    """Medians of stock and converted, and the median of their paired ratios."""
    ratios = [
        stock / ours
        for stock, ours in zip(samples["stock"], samples["converted"], strict=True)
    ]
    return {
        "stock_ms": 1e3 * statistics.median(samples["stock"]),
        "converted_ms": 1e3 * statistics.median(samples["converted"]),
        "speedup": statistics.median(ratios),
        "speedup_95_percent_at_least": lower_bound(ratios),
        "converted_over_stock_95_percent_at_most": upper_bound(
            [1 / ratio for ratio in ratios]
        ),
        "pairs": len(ratios),
        **(
            {"floor_ms": 1e3 * statistics.median(samples["ideal"])}
            if "ideal" in samples
            else {}
        ),
    }
