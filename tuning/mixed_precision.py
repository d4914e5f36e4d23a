"""Tunes MobileNetV2 in mixed bfloat16: candidates with wrong numbers, and the gain.

    python -m tuning.mixed_precision

Writes tuning/results/mixed-precision-<backend>.json: the candidates refused for wrong
or non-finite numbers, and the whole model's step, stock and converted interleaved.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import keras

import keras_diagwise
from tuning.ratios import touch_memory

RESULTS = Path(__file__).with_name("results")
IMAGE_SIZE, BATCH_SIZE, CLASSES = 96, 16, 10
REFUSED = ("wrong numbers", "not finite")


def tuned() -> dict:
    """Figures of tuning the model in an empty store."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = keras.applications.MobileNetV2(
        (IMAGE_SIZE, IMAGE_SIZE, 3), weights=None, classes=CLASSES
    )
    graph = keras.backend.backend() == "tensorflow"
    jit_compile = False if graph else "auto"
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=jit_compile)
    with tempfile.TemporaryDirectory() as folder:
        keras_diagwise.decisions.location = folder
        report = keras_diagwise.tune(model, batch_size=BATCH_SIZE, verbose=0)
    assert report.model is not None
    return {
        "environment": report.environment.to_dict(),
        "policy": "mixed_bfloat16",
        "batch_size": BATCH_SIZE,
        "image_size": IMAGE_SIZE,
        "passes": len(report.rows),
        "refused_for_their_numbers": [
            [str(row.problem), row.pass_name, name, reason]
            for row in report.rows
            for name, (failure, reason) in row.failures.items()
            if failure in REFUSED
        ],
        "step": report.model.to_dict(),
        "rows": [
            {
                "problem": str(row.problem),
                "pass": row.pass_name,
                "winner": row.winner,
                "seconds": row.seconds,
                "native_seconds": row.native_seconds,
            }
            for row in report.rows
        ],
    }


def main() -> None:
    touch_memory()
    found = tuned()
    path = RESULTS / f"mixed-precision-{keras.backend.backend()}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    step = found["step"]
    print(f"{len(found['refused_for_their_numbers'])} candidates refused")
    print(f"step: {step['stock_seconds']:.3f} s, {step['converted_seconds']:.3f} s")


if __name__ == "__main__":
    main()
