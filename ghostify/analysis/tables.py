"""A redundancy analysis as tables of pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ghostify.analysis.values import THRESHOLDS, Redundancy

__all__ = ["layer_frame", "map_frame", "pair_frame"]


def layer_frame(found: Redundancy) -> pd.DataFrame:
    """Return one row for each layer and side of the filter."""
    rows = []
    for layer in found.layers:
        spec = layer.suggestion.spec
        for kernel in found.kernels:
            low, middle, high = layer.quartiles(kernel)
            rows.append(
                {
                    "layer": layer.name,
                    "depth": layer.depth,
                    "maps": layer.maps,
                    "constant_maps": layer.constant,
                    "output": "x".join(map(str, layer.site.out_size)),
                    "positions": layer.positions,
                    "d": kernel,
                    "mse": layer.mse(kernel),
                    "relative_mse": layer.relative_mse(kernel),
                    "r2": 1 - layer.relative_mse(kernel),
                    "lower_quartile": low,
                    "median": middle,
                    "upper_quartile": high,
                    **{
                        f"share_below_{one:g}": layer.share_below(one, kernel) for one in THRESHOLDS
                    },
                    "suggested": "keep" if spec is None else str(spec),
                    "suggested_error": layer.suggestion.error,
                }
            )
    return pd.DataFrame(rows)


def map_frame(found: Redundancy) -> pd.DataFrame:
    """Return one row for each map of each layer: its variance, partners and errors."""
    parts = [
        pd.DataFrame(
            {
                "layer": layer.name,
                "map": np.arange(layer.maps),
                "variance": layer.variance,
                **{
                    f"{what}_d{kernel}": values[place]
                    for place, kernel in enumerate(found.kernels)
                    for what, values in (
                        ("partner", layer.partners),
                        ("relative_mse", layer.relative),
                    )
                },
            }
        )
        for layer in found.layers
    ]
    return pd.concat(parts, ignore_index=True)


def pair_frame(found: Redundancy) -> pd.DataFrame:
    """Return one row for each of the most similar pairs, as the paper's Table 2 has them."""
    rows = []
    for layer in found.layers:
        for pair in layer.pairs:
            row = {"layer": pair.layer, "source": pair.source, "target": pair.target}
            row |= {f"mse_d{d}": one for d, one in zip(pair.kernels, pair.mse, strict=True)}
            row |= {
                f"relative_mse_d{d}": one
                for d, one in zip(pair.kernels, pair.relative, strict=True)
            }
            rows.append(row)
    return pd.DataFrame(rows)
