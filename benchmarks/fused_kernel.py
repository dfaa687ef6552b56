"""One kernel for a whole Ghost module on a CPU, beside the operations it would replace.

    taskset -c 0 python benchmarks/fused_kernel.py

A 1x1 primary convolution, its 3x3 depthwise branch, the batch norms of both (folded to a scale and
a shift) and ReLU, joined in one channels-last map: computed row by row by a C++ kernel that keeps
three rows of the primary maps in the cache and writes every output value once (matrix products
by torch's BLAS), and by the operations of ``ghostify.optimize(runtime="torch-channels-last")``: two
fused oneDNN convolutions, a depthwise one, and the joint. One thread, batch 1, float32, in turns.
Writes ``reports/latency/fused_kernel.{json,md}``. Needs a C++ compiler and ninja.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.cpp_extension import load_inline

import ghostify
from ghostify.cost.machine import fingerprint
from ghostify.nn.ghost import GhostModule
from ghostify.spec import GhostSpec

REPORTS = Path(__file__).parent.parent / "reports" / "latency"
LAYERS = (
    (64, 64, 56), (256, 64, 56), (64, 256, 56), (512, 128, 28), (128, 512, 28), (1024, 256, 14),
    (256, 1024, 14), (2048, 512, 7), (512, 2048, 7),
)  # fmt: skip
"""The 1x1 convolutions of ResNet-50: maps read, maps made, side."""
ROUNDS, REPEATS = 15, 20

SOURCE = r"""
#include <torch/extension.h>
#include <algorithm>
#include <vector>

// maps (H*W, C), weight (C, m), filters (9, m), affine (4, m): scale and shift of the primary maps,
// scale and shift of their ghosts; out (H*W, 2m).
void ghost(at::Tensor maps, at::Tensor weight, at::Tensor filters, at::Tensor affine,
           at::Tensor out, int64_t height, int64_t width) {
  const int64_t m = weight.size(1);
  const int64_t rows = std::max<int64_t>(1, 64 / width);   // that one product makes
  const int64_t held = rows + 2;
  at::Tensor ring = at::empty({held * width, m}, maps.options());
  float* kept = ring.data_ptr<float>();
  float* made = out.data_ptr<float>();
  const float* w = filters.data_ptr<float>();
  const float* a = affine.data_ptr<float>();
  int64_t ready = 0;
  std::vector<float> sums(m);
  for (int64_t y = 0; y < height; ++y) {
    while (ready < height && ready <= y + 1) {               // the rows below that are read
      const int64_t slot = ready % held;
      const int64_t many = std::min({rows, height - ready, held - slot, y + held - 1 - ready});
      at::Tensor into = ring.narrow(0, slot * width, many * width);
      at::mm_out(into, maps.narrow(0, ready * width, many * width), weight);
      ready += many;
    }
    const float* middle = kept + (y % held) * width * m;
    for (int64_t x = 0; x < width; ++x) {
      float* to = made + (y * width + x) * 2 * m;
      const float* from = middle + x * m;
      #pragma omp simd
      for (int64_t c = 0; c < m; ++c) to[c] = std::max(0.f, from[c] * a[c] + a[m + c]);
      std::fill(sums.begin(), sums.end(), 0.f);
      float* s = sums.data();
      for (int64_t dy = -1; dy <= 1; ++dy) {
        if (y + dy < 0 || y + dy >= height) continue;
        const float* row = kept + ((y + dy) % held) * width * m;
        for (int64_t dx = -1; dx <= 1; ++dx) {
          if (x + dx < 0 || x + dx >= width) continue;
          const float* one = row + (x + dx) * m;
          const float* tap = w + ((dy + 1) * 3 + dx + 1) * m;
          #pragma omp simd
          for (int64_t c = 0; c < m; ++c) s[c] += one[c] * tap[c];
        }
      }
      #pragma omp simd
      for (int64_t c = 0; c < m; ++c)
        to[m + c] = std::max(0.f, s[c] * a[2 * m + c] + a[3 * m + c]);
    }
  }
}
"""


def main() -> None:
    torch.set_num_threads(1)
    kernel = load_inline(
        "ghostify_fused_ghost",
        SOURCE,
        functions=["ghost"],
        extra_cflags=["-O3", "-march=native", "-ffast-math", "-fopenmp-simd"],
    )
    rows = [_layer(kernel.ghost, *layer) for layer in LAYERS]
    machine = str(fingerprint())
    found = {"machine": machine, "rounds": ROUNDS, "layers": rows}
    (REPORTS / "fused_kernel.json").write_text(json.dumps(found, indent=1) + "\n")
    _report(rows, machine)
    print((REPORTS / "fused_kernel.md").read_text())


@torch.no_grad()
def _layer(kernel: Callable[..., None], reads: int, makes: int, side: int) -> dict[str, float]:
    torch.manual_seed(0)
    conv = nn.Conv2d(reads, makes, 1, bias=False)
    ghost = GhostModule.from_conv(conv, GhostSpec(2, 3))
    norm = nn.BatchNorm2d(makes)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(ghost, norm, nn.ReLU()).eval()
    maps = torch.randn(1, reads, side, side)
    wanted = network(maps)
    parts = ghostify.optimize(network, example=maps, runtime="torch-channels-last")
    state = ghost.state_dict()
    primary = next(one for name, one in state.items() if one.shape == (makes // 2, reads, 1, 1))
    cheap = next(one for name, one in state.items() if one.shape == (makes // 2, 1, 3, 3))
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    affine = torch.stack(
        [scale[: makes // 2], shift[: makes // 2], scale[makes // 2 :], shift[makes // 2 :]]
    )
    flat = maps.permute(0, 2, 3, 1).reshape(side * side, reads).contiguous()
    weight = primary.flatten(1).t().contiguous()
    filters = cheap.flatten(1).t().contiguous()
    out = torch.empty(side * side, makes)
    last = maps.contiguous(memory_format=torch.channels_last)

    def fused() -> Tensor:
        kernel(flat, weight, filters, affine, out, side, side)
        return out.view(1, side, side, makes).permute(0, 3, 1, 2)

    def separate() -> Tensor:
        made: Tensor = parts(last)
        return made

    def product() -> Tensor:
        return torch.mm(flat, weight)

    conv_alone = nn.Sequential(nn.Conv2d(reads, makes // 2, 1, bias=False)).eval()
    alone = ghostify.optimize(conv_alone, example=maps, runtime="torch-channels-last")

    def primary_alone() -> Tensor:
        made: Tensor = alone(last)
        return made

    for run in (fused, separate):
        difference = float((run() - wanted).abs().max() / wanted.abs().max())
        assert difference < 1e-4, (run.__name__, difference)
    runs = {"fused": fused, "separate": separate, "product": product, "primary": primary_alone}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(REPEATS):
                run()
            times[name].append((time.perf_counter() - began) / REPEATS * 1e3)
    found = {name: statistics.median(values) for name, values in times.items()}
    print(reads, makes, side, found, file=sys.stderr, flush=True)
    return {"reads": reads, "makes": makes, "side": side, **found}


def _report(rows: list[dict[str, float]], machine: str) -> None:
    lines = [
        "# One kernel for a Ghost module on a CPU",
        "",
        "Made by `python benchmarks/fused_kernel.py` (what is compared: its head). The 1x1",
        "convolutions of ResNet-50 as Ghost modules (s=2, d=3) with batch norm and ReLU; medians",
        f"of {ROUNDS} rounds in turns. {machine}.",
        "",
        "| maps read | maps made | side | one kernel, ms | oneDNN operations, ms | speed-up "
        "| primary alone: BLAS, ms | primary alone: oneDNN, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["separate"] / row["fused"]
        lines.append(
            f"| {row['reads']} | {row['makes']} | {row['side']} | {row['fused']:.3f} "
            f"| {row['separate']:.3f} | {ratio:.2f}x | {row['product']:.3f} "
            f"| {row['primary']:.3f} |"
        )
    whole = sum(row["separate"] for row in rows) / sum(row["fused"] for row in rows)
    lines += [
        "",
        f"All together: {whole:.2f}x. The columns to the right time the primary convolution by",
        "itself, over the whole map: BLAS needs twice oneDNN's time for it, and what the kernel",
        "takes beyond that is no less than what the separate operations take beyond theirs. So",
        "there is no such kernel in ghostify.",
        "",
    ]
    (REPORTS / "fused_kernel.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
