"""figure.png: five attributes at once by four methods, from the pictures of `make bench`.

python experiments/04_methods/figure.py
"""

import json
from pathlib import Path

from PIL import Image

BENCH = Path("runs/bench/methods/bench")
TASK = "generate/glasses & beard & smile & hat & dark_skin"
METHODS = "lcg", "composable", "styleflow", "lace_langevin"
GAP = 16

files = {
    entry["method"]: entry["file"]
    for entry in json.loads((BENCH / "pictures.json").read_text())
    if entry["task"] == TASK
}
sheets = [Image.open(BENCH / files[method]) for method in METHODS]
width, height = sheets[0].size
joined = Image.new("RGB", (len(sheets) * (width + GAP) - GAP, height), "white")
for i, sheet in enumerate(sheets):
    joined.paste(sheet, (i * (width + GAP), 0))
joined.save(Path(__file__).with_name("figure.png"))
