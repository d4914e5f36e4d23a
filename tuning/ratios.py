"""Ratios of what was timed in turn, and how sure they are."""

from __future__ import annotations

import functools
import math
import statistics

import numpy as np

from keras_diagwise.tuner import measure

lower_bound = functools.partial(measure.lower_bound, resamples=2000)


TOUCHED = 2**31


def touch_memory() -> None:
    """Takes some GiB and gives them back, before anything is timed: the host of a
    virtual machine that was just started backs its memory when it is first written."""
    np.ones(TOUCHED, "uint8").sum()


def geometric_mean(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def upper_bound(ratios) -> float:
    """The 95 % bootstrap bound above the median of paired ratios."""
    return 1 / lower_bound([1 / ratio for ratio in ratios])


def compared(samples) -> dict:
    """Medians of stock and converted, and their ratio pair by pair."""
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
