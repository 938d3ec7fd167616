"""Makes docs/timeline.png: the timeline of a Jacobian of a network with three layers.

    python docs/timeline_example.py                 # on a card where one is found, else on NumPy
    python docs/timeline_example.py --backend cupy

It writes the function's arguments to a temporary folder and runs, for this file itself, the command
`python -m gpujac timeline docs/timeline_example.py:network --at x.npy --at p.npz --out trace.json
--chunk-size 64 --picture docs/timeline.png`.
"""

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np

from gpujac.cli import main

HERE = Path(__file__).resolve()


def network(x, p):
    """Three layers z + z / (1 + exp(-z)), z = W x + b."""
    for i in "123":
        z = p["w" + i] @ x + p["b" + i]
        x = z + z / (1 + np.exp(-z))
    return x


def arguments(folder, widths=(256, 512, 512, 256)):
    """Writes the point and the parameters; returns the two files."""
    rng = np.random.default_rng(0)
    p = {}
    for i, (n, m) in enumerate(itertools.pairwise(widths), 1):
        p[f"w{i}"] = rng.standard_normal((m, n)) / n**0.5
        p[f"b{i}"] = 0.1 * rng.standard_normal(m)
    np.save(folder / "x.npy", rng.standard_normal(widths[0]))
    np.savez(folder / "p.npz", **p)
    return folder / "x.npy", folder / "p.npz"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        x, p = arguments(Path(name))
        command = ["timeline", f"{HERE}:network", "--at", str(x), "--at", str(p), "--chunk-size", "64"]
        command += ["--out", f"{name}/trace.json", "--picture", str(HERE.with_name("timeline.png"))]
        sys.exit(main([*command, *sys.argv[1:]]))
