"""Records of a full grid of hyper-parameters, without training a model."""

import itertools

import numpy as np
import pandas as pd


def grid(seed=0, repeats=1, **axes):
    """Returns a row for each setting and repeat, with random numbers."""
    generator = np.random.default_rng(seed)
    rows = [
        dict(zip(axes, values, strict=True)) | {"seed": repeat}
        for values in itertools.product(*axes.values())
        for repeat in range(repeats)
    ]
    records = pd.DataFrame(rows)
    records["twin_of"] = np.arange(len(records))
    records["gap"] = generator.normal(size=len(records))
    records["measure"] = generator.normal(size=len(records))
    return records
