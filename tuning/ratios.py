"""Ratios of what was timed in turn, and how sure they are."""

from __future__ import annotations

import math
import random
import statistics


def geometric_mean(values) -> float:
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values))


def lower_bound(ratios) -> float:
    """The 95 % bootstrap bound below the median of paired ratios."""
    draw = random.Random(0)
    resampled = sorted(
        statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000)
    )
    return resampled[100]


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
            {"floor_ms": 1e3 * statistics.median(samples["floor"])}
            if "floor" in samples
            else {}
        ),
    }
