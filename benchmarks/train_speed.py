"""Images per second of the training loop, beside a bare PyTorch loop on the same machine.

    python benchmarks/train_speed.py --data PATH [--device cuda] [--steps 40] [--rounds 5]

ResNet-20, converted at s=2, learns from the dense network: logits and features, AdamW, batches
of 128 images of 32x32. The bare loop does the same arithmetic on batches that lie ready in
memory and measures nothing. The variants take turns, round by round, so that a machine that is
busy elsewhere slows all of them alike; the figure is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional

import ghostify
from ghostify.data.batches import training_batches
from ghostify.data.images import open_images
from ghostify.data.preprocess import normalise, preprocess_of
from ghostify.models.zoo import build
from ghostify.train.distil import Taps, stages
from ghostify.train.loop import train
from ghostify.train.recipe import load_recipe

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", default="bare,ours,channels_last,bf16,bf16_channels_last")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    variants = options.variants.split(",")
    built = build(options.model, seed=0)
    images = open_images(options.data, split="train")
    preprocess = preprocess_of(built.model, built.origin, built.input_size)
    student = ghostify.convert(built, verify=False).model
    recipe = load_recipe("distil", steps=options.steps)
    runs: dict[str, Callable[[], float]] = {}
    for name in variants:
        if name.startswith("bare"):
            runs[name] = bare(student, built.model, recipe, images, preprocess, options, name)
            continue

        def ours(name: str = name) -> float:
            outcome = train(
                student,
                recipe,
                images,
                preprocess,
                teacher=built.model,
                device=options.device,
                amp="bf16" if "bf16" in name else "none",
                channels_last="channels_last" in name,
                compile="compile" in name,
            )
            return options.steps * BATCH / outcome.seconds

        runs[name] = ours
    paces: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            pace = run()
            if number:  # the first round warms up
                paces[name].append(pace)
    base = statistics.median(paces[variants[0]])
    for name, found in paces.items():
        middle = statistics.median(found)
        print(f"{name:28} {middle:10.1f} images/s  {middle / base:6.3f}x")
    print(json.dumps({name: [round(pace, 1) for pace in found] for name, found in paces.items()}))


def bare(student, teacher, recipe, images, preprocess, options, name):
    import copy

    device = torch.device(options.device)
    memory_format = torch.channels_last if "channels_last" in name else torch.contiguous_format
    amp = torch.autocast(device.type, torch.bfloat16, enabled="bf16" in name)
    batches = []
    source = training_batches(images, preprocess, batch_size=BATCH, seed=0, epoch=0)
    for batch in source:
        batches.append(tuple(part.to(device) for part in batch))
        if len(batches) == options.steps:
            break
    teacher = copy.deepcopy(teacher).to(device, memory_format=memory_format).eval()
    image = torch.zeros(2, 3, *preprocess.size, device=device)

    def run() -> float:
        model = copy.deepcopy(student).to(device, memory_format=memory_format).train()
        taps = stages(model, teacher, image)
        ours, theirs = Taps(model, taps), Taps(teacher, taps)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        torch.backends.cudnn.benchmark = True
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for pixels, labels in batches:
            inputs = normalise(pixels, preprocess).contiguous(memory_format=memory_format)
            with amp:
                logits = model(inputs).float()
                with torch.no_grad():
                    told = teacher(inputs).float()
            loss = 0.1 * functional.cross_entropy(logits, labels)
            loss = loss + 0.9 * 16 * functional.kl_div(
                functional.log_softmax(logits / 4, 1),
                functional.log_softmax(told / 4, 1),
                reduction="batchmean",
                log_target=True,
            )
            said, shown = ours.take(), theirs.take()
            for layer, wanted in shown.items():
                wanted = wanted.float()
                loss = (
                    loss + functional.mse_loss(said[layer].float(), wanted) / wanted.square().mean()
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        ours.close()
        theirs.close()
        return len(batches) * BATCH / (time.perf_counter() - begin)

    return run


if __name__ == "__main__":
    main()
