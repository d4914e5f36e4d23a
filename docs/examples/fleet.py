"""Two workers share a store: each measures some of the passes, and both get all plans.

The store is a folder here; a URL such as s3://bucket/decisions works too.

To install: pip install 'keras-diagwise[jax]'
"""

import json
import subprocess
import sys
import tempfile

WORKER = """
import json, sys
import keras
from keras import layers
import keras_diagwise

keras_diagwise.decisions.location = sys.argv[1]
model = keras.Sequential([keras.Input((16, 16, 8))])
for size in (3, 5):
    model.add(layers.DepthwiseConv2D(size, padding="same"))
keras_diagwise.convert(model, verbose=0)
report = keras_diagwise.tune(model, batch_size=8, verbose=0)
lines = keras_diagwise.summary(model, batch_size=8)
plans = {line.path: str(line.plan) for line in lines}
print(json.dumps({"measured": report.measured, "plans": plans}))
"""

with tempfile.TemporaryDirectory() as store:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, store], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = [json.loads(each.communicate()[0].splitlines()[-1]) for each in workers]

for i, each in enumerate(found):
    print(f"worker {i} measured {each['measured']} passes")
assert found[0]["plans"] == found[1]["plans"]
for path, plan in found[0]["plans"].items():
    print(f"{path}: {plan}")
