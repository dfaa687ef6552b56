"""Makes what runs begin with: the network that a method makes of the original."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ghostify import converting, opening
from ghostify.artefact import save
from ghostify.comparisons.commands import needs_labels
from ghostify.comparisons.folder import Folder
from ghostify.comparisons.inputs import Pictures
from ghostify.comparisons.jobs import Job
from ghostify.data.base import Images
from ghostify.data.batches import LabelledBatches, calibration_batches
from ghostify.data.preprocess import Preprocess, preprocess_of
from ghostify.errors import InputError, SearchError
from ghostify.graph.calibrate import FitOptions
from ghostify.graph.rewrite import Conversion
from ghostify.models.weights import load_weights
from ghostify.models.zoo import Built
from ghostify.plan import Plan
from ghostify.pruning import Pruned, prune
from ghostify.rules import PlanRules
from ghostify.runs.suite import Suite, SuiteMethod, SuiteNetwork
from ghostify.searching import search
from ghostify.sources import sized_by
from ghostify.spec import GhostSpec

__all__ = ["Tell", "make_start", "open_original"]

Tell = Callable[[str], None]
"""Called with what begins now; raises KeyboardInterrupt when it is time to end."""

_RANKED = 2048  # images, as ``ghostify prune``
_FITTED_BATCH = 64  # as ``ghostify convert --calibrate``


def open_original(
    network: SuiteNetwork,
    folder: Folder,
    key: str,
    pictures: Pictures | None,
    *,
    bare: bool = False,
    seed: int = 0,
) -> Built:
    """Build the network that methods change, with the weights that it has by then.

    Args:
        pictures: settle an input size that neither the suite nor the network says.
        bare: a new one, of which no weight was ever trained.
        seed: of weights that nothing else gives.
    """
    weights = None if bare else _weights(network, folder, key)
    adapted = weights is not None and weights != network.weights
    built = opening.open_model(
        network.model,
        args=dict(network.model_args),
        pretrained=network.pretrained and not bare and not adapted,
        seed=seed,
    )
    if weights is not None:
        load_weights(built.model, weights, name=network.model)
    if network.input is not None:
        return dataclasses.replace(built, input_size=network.input)
    return built if pictures is None else sized_by(built, pictures.train)


def make_start(
    suite: Suite,
    job: Job,
    folder: Folder,
    pictures: Pictures | None,
    tell: Tell,
    *,
    device: str = "auto",
) -> None:
    """Make the network that a run begins with, and note down what it costs.

    Raises:
        GhostifyError: the method cannot do what the suite asks of it.
        KeyboardInterrupt: ``tell`` said so.
    """
    began = time.monotonic()
    network, method = suite.network(job.network), suite.method(job.method)
    bare = method.start == "scratch"
    built = open_original(network, folder, job.original, pictures, bare=bare, seed=job.seed)
    settings = _settings(suite, network, method, built, job.seed, pictures, tell)
    if method.kind == "prune":
        conversion: Conversion = _pruned(method, built, job, pictures, settings)
    else:
        plan, rules = _plan(suite, network, method, job, folder, tell, device=device)
        conversion = converting.convert(built, plan=plan, rules=rules, seed=job.seed, **settings)
    if isinstance(settings.get("calibration"), _Calibration):
        images = settings["calibration"].preprocess.to_json()
        conversion = dataclasses.replace(conversion, images=images)
    if conversion.original is None and built.ghosted is None:
        conversion = dataclasses.replace(conversion, original=built.model.state_dict())
    tell("writing the start")
    save(conversion, folder.network("starts", job.start), force=True)
    folder.note("starts", job.start, _facts(conversion, method, time.monotonic() - began))


def _weights(network: SuiteNetwork, folder: Folder, key: str) -> Path | None:
    if network.adapt is None:
        return network.weights
    return folder.network("originals", key) / "model.safetensors"


def _plan(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    job: Job,
    folder: Folder,
    tell: Tell,
    *,
    device: str,
) -> tuple[Plan | Path | None, PlanRules | None]:
    """Return by which plan or rules a method converts."""
    if method.kind == "dense":
        return Plan.empty(), None
    if method.kind == "plan":
        return method.plans[network.name], None
    if method.kind == "search":
        return _searched(suite, network, method, job, folder, tell, device=device), None
    options = method.options
    sides = tuple(sorted(map(int, str(options["d"]).split("+"))))
    size: dict[str, Any] = {"kernel": sides[0]} if len(sides) == 1 else {"mixed": sides}
    spec = GhostSpec(options["s"], cheap=options["cheap"], round_to=options["round_to"], **size)
    rules: list[tuple[str, GhostSpec | None]] = [(one, None) for one in options["keep"]]
    for pattern, text in options["set"].items():
        own = None if text == "keep" else GhostSpec.parse(text, default=spec)
        rules.append((pattern, own))
    return None, PlanRules(spec, tuple(rules), convert_first=options["all"])


def _searched(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    job: Job,
    folder: Folder,
    tell: Tell,
    *,
    device: str,
) -> Plan:
    stopped = False

    def should_stop() -> bool:
        nonlocal stopped
        try:
            tell("searching")
        except KeyboardInterrupt:
            stopped = True
        return stopped

    found = search(
        network.model,
        None if suite.data is None else suite.data.path,
        budget=str(job.budget),
        output=folder.network("searches", job.start),
        weights=_weights(network, folder, job.original),
        pretrained=network.pretrained and network.adapt is None,
        model_args=network.model_args,
        input_size=network.input,
        seed=job.seed,
        device=device,
        on_step=tell,
        should_stop=should_stop,
        **{key: value for key, value in method.options.items() if key != "fit"},
    )
    if stopped:
        raise KeyboardInterrupt
    if found.plan is None:
        raise SearchError(f"the search of {job.name} has found no plan that keeps {job.budget}")
    return found.plan


def _pruned(
    method: SuiteMethod,
    built: Built,
    job: Job,
    pictures: Pictures | None,
    settings: Mapping[str, Any],
) -> Conversion:
    options = method.options
    labelled = None
    if needs_labels(method):
        if pictures is None:
            raise InputError(
                f"{options['method']} ranks maps by labelled images, and the suite has none; give "
                "data"
            )
        sparse = options["method"] in ("group-sparse", "growing-reg")
        count = None if sparse else options.get("images", _RANKED)
        preprocess = _preprocess(built)
        labelled = LabelledBatches(pictures.train, preprocess, count=count, seed=job.seed)
    assert job.budget is not None
    return prune(
        built,
        budget=job.budget,
        method=options["method"],
        images=labelled,
        sparse_steps=options.get("sparse_steps"),
        keep=tuple(options.get("keep", ())),
        seed=job.seed,
        **{("on_progress" if key == "on_fit" else key): one for key, one in settings.items()},
    )


def _settings(
    suite: Suite,
    network: SuiteNetwork,
    method: SuiteMethod,
    built: Built,
    seed: int,
    pictures: Pictures | None,
    tell: Tell,
) -> dict[str, Any]:
    """Return the arguments that all methods have in common: the size, the fit, the displays."""
    found: dict[str, Any] = {
        "input_size": network.input,
        "on_step": tell,
        "on_fit": lambda _done, _of, what: tell(what),
    }
    if not method.fits or pictures is None or suite.data is None:
        return found
    images = _Calibration(pictures.train, _preprocess(built), suite.data.calibration, seed)
    found["calibration"] = images
    found["fit"] = FitOptions(seed=seed, **(method.options.get("fit") or {}))
    found["calibration_data"] = {
        "name": pictures.train.name,
        "images": len(pictures.train),
        "digest": pictures.train.digest,
    }
    return found


def _preprocess(built: Built) -> Preprocess:
    if built.input_size is None or built.kind != "image":
        raise InputError(
            f"{built.origin.name} does not say how large its images are; give input: [C, H, W]"
        )
    return preprocess_of(built.model, built.origin, built.input_size)


class _Calibration:
    """Unlabelled images to fit to, the same each time they are gone through."""

    def __init__(self, images: Images, preprocess: Preprocess, count: int, seed: int) -> None:
        self.preprocess = preprocess
        self._batches = calibration_batches(
            images, preprocess, count=count, seed=seed, batch_size=_FITTED_BATCH
        )

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._batches)


def _facts(conversion: Conversion, method: SuiteMethod, seconds: float) -> dict[str, Any]:
    before, after = conversion.before, conversion.after
    assert before is not None
    assert after is not None
    plan: dict[str, Any] | None = conversion.plan.as_json()
    if method.kind == "dense":
        plan = None
    elif isinstance(conversion, Pruned):
        plan = {"kept": {name: len(its) for name, its in conversion.kept.items()}}
    return {
        "macs": after.macs,
        "params": after.params,
        "macs_before": before.macs,
        "params_before": before.params,
        "plan": plan,
        "seconds": round(seconds, 3),
    }
