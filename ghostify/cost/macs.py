"""Count a network's multiply-adds with torch's own counter, and check the closed form by it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ghostify.errors import CountError
from ghostify.graph.probe import Probe, copy_model, sentence
from ghostify.graph.sites import Sites, find_sites
from ghostify.graph.trace import CONVOLUTIONS
from ghostify.nn.cheap import ChannelScale
from ghostify.nn.ghost import GhostModule
from ghostify.spec import ConvSite

__all__ = [
    "Counted",
    "SecondOpinion",
    "Tally",
    "agrees",
    "check_against_sites",
    "check_macs",
    "check_params",
    "count",
    "count_params",
    "second_opinion",
    "survey",
    "tell_apart",
]

_MULTIPLYING = frozenset(
    {
        "_cdist_forward",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_thnn_fused_gru_cell",
        "_thnn_fused_lstm_cell",
        "_trilinear",
        "addbmm",
        "addmv",
        "addr",
        "dot",
        "lstm",
        "mkldnn_rnn_layer",
        "mv",
        "vdot",
    }
)
"""Operators of torch that multiply and add, and for which its counter has no formula."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a counter saw: all multiply-adds, those of convolutions, and what it cannot count."""

    macs: int
    conv_macs: int  # of convolution operators
    ghosts: frozenset[str] = frozenset()  # names of the Ghost modules that ran
    modules: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # (of convs, all)
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """thop's count of one forward pass, in multiply-adds.

    ``layers`` are the convolutions that it counts; its ``total`` also holds batch norms and
    pooling, and neither subclasses of Conv2d nor functional calls.
    """

    total: int
    layers: dict[str, int]


class _Operators(TorchDispatchMode):
    """Notes which operators ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves its modes untyped
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(getattr(func, "_overloadpacket", func))
        return func(*args, **(kwargs or {}))


class Tally:
    """Counts what a model computes while the context is open.

    The authority is ``torch.utils.flop_counter``, which counts two for each multiply-add; it
    has no formula for products per channel, so those of d = 1 Ghost modules are added from
    the shapes that they saw. Operators that multiply and add but have no formula are listed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._scaled: list[int] = []
        self._ran: set[str] = set()
        self._handles: list[Any] = []
        self._operators = _Operators()
        self._counter = FlopCounterMode(display=False)

    def __enter__(self) -> Tally:
        for name, module in self._model.named_modules():
            if isinstance(module, ChannelScale):
                hook = _scale_counter(self._scaled)
                self._handles.append(module.register_forward_hook(hook))
            elif isinstance(module, GhostModule):
                hook = _name_collector(self._ran, name)
                self._handles.append(module.register_forward_hook(hook))
        self._operators.__enter__()  # type: ignore[no-untyped-call]  # a mode of torch
        self._counter.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.__exit__(*error)
        self._operators.__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def counted(self) -> Counted:
        """Return what was seen."""
        by_module = self._counter.get_flop_counts()
        unknown = {
            packet
            for packet in self._operators.seen
            if packet not in self._counter.flop_registry
            and (packet.__name__ in _MULTIPLYING or not str(packet).startswith(("aten.", "prim")))
        }
        return Counted(
            macs=self._counter.get_total_flops() // 2 + sum(self._scaled),
            conv_macs=_of_convolutions(by_module.get("Global", {})) // 2,
            ghosts=frozenset(self._ran),
            modules={
                name.partition(".")[2]: (_of_convolutions(flops) // 2, sum(flops.values()) // 2)
                for name, flops in by_module.items()
            },
            uncounted=tuple(sorted(str(packet) for packet in unknown)),
        )


def count(probe: Probe) -> Counted:
    """Count the multiply-adds of one forward pass in eval mode.

    Raises:
        InputError: the network does not accept the example.
    """
    while True:
        model = probe.model
        tally = Tally(model)
        with tally:
            probe.run()
        if probe.model is model:  # else the probe went over to another copy
            return tally.counted()


def survey(probe: Probe) -> tuple[Sites, Counted]:
    """Find the convolutions and count the multiply-adds, both in one run.

    Raises:
        InputError: the network does not accept the example.
        CountError: the closed form of the convolutions differs from what the counter saw.
    """
    tallies: list[Tally] = []

    def tally(model: nn.Module) -> Tally:
        tallies.append(Tally(model))
        return tallies[-1]

    found = find_sites(probe, also=tally)
    counted = tallies[-1].counted()
    found = replace(found, sites=tell_apart(found.sites, counted))
    check_against_sites(counted, found.sites, model=probe.name)
    return found, counted


def count_params(model: nn.Module) -> int:
    """Return the number of parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def agrees(counted: Counted, sites: Sequence[ConvSite]) -> bool:
    """Return whether the closed form of all convolutions equals what the counter saw."""
    return counted.conv_macs == sum(
        counted.modules[site.name][0] if site.other_macs else site.macs for site in sites
    )


def tell_apart(sites: Sequence[ConvSite], counted: Counted) -> tuple[ConvSite, ...]:
    """Exclude subclasses of convolutions that multiply and add more than a convolution does."""
    plain = {kind.__name__ for kind in CONVOLUTIONS} | {"functional"}
    found = []
    for site in sites:
        _, macs = counted.modules.get(site.name, (0, site.macs))
        if site.calls and site.type not in plain and macs != site.macs:
            reason = site.reason or f"{site.type} does more than one convolution"
            other = macs - site.macs
            site = replace(site, eligible=False, reason=reason, other_macs=other)
        found.append(site)
    return tuple(found)


def check_against_sites(counted: Counted, sites: Sequence[ConvSite], *, model: str) -> None:
    """Make sure that the closed form of all convolutions equals what the counter saw.

    Raises:
        CountError: they differ, so some convolution was overlooked or seen with a wrong shape.
    """
    if not agrees(counted, sites):
        closed = sum(site.macs for site in sites)
        raise CountError(
            f"the convolutions of {model} come to {closed} multiply-adds in closed form, but "
            f"torch counts {counted.conv_macs}; the per-layer figures cannot be trusted"
        )


def check_macs(counted: Counted, expected: int, *, model: str) -> None:
    """Make sure that a converted network takes the multiply-adds that eq. 4 says.

    Raises:
        CountError: it does not.
    """
    if counted.macs != expected:
        raise CountError(
            f"the converted {model} should take {expected} multiply-adds by eq. 4, but torch "
            f"counts {counted.macs}; the conversion cannot be trusted"
        )


def check_params(model: nn.Module, expected: int, *, model_name: str) -> None:
    """Make sure that a converted network has the parameters that eq. 5 says.

    Raises:
        CountError: it does not.
    """
    found = count_params(model)
    if found != expected:
        raise CountError(
            f"the converted {model_name} should have {expected} parameters by eq. 5, but has "
            f"{found}; the conversion cannot be trusted"
        )


def second_opinion(probe: Probe, sites: Sequence[ConvSite]) -> SecondOpinion | str:
    """Let thop count the same forward pass, on a deep copy, or say why it cannot.

    Raises:
        CountError: thop and the closed form disagree on a plain convolution, which both
            of them know.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thop uses what Python has deprecated
        try:
            from thop import profile
        except ImportError as error:
            return f"thop cannot be imported ({sentence(error)})"
    logging.getLogger("thop").setLevel(logging.ERROR)
    model = copy_model(probe.source).eval()
    try:
        total, _, tree = profile(model, inputs=probe.call.args, verbose=False, ret_layer_info=True)
    except Exception as error:
        return f"thop cannot run the network ({sentence(error)})"
    layers = dict(_leaves(tree))
    plain = {
        site.name: site
        for site in sites
        if site.type == "Conv2d" and site.calls and site.name in layers
    }
    for name, site in plain.items():
        if round(layers[name]) != site.macs:
            raise CountError(
                f"{name}: {site.macs} multiply-adds in closed form, but thop counts "
                f"{round(layers[name])}; the figures of {probe.name} cannot be trusted"
            )
    return SecondOpinion(round(total), {name: round(layers[name]) for name in plain})


def _of_convolutions(flops: Mapping[Any, int]) -> int:
    return sum(number for packet, number in flops.items() if "conv" in str(packet))


def _name_collector(names: set[str], name: str) -> Any:
    def note(_module: nn.Module, _args: Any, _output: Any) -> None:
        names.add(name)

    return note


def _scale_counter(scaled: list[int]) -> Any:
    def note(_module: nn.Module, _args: Any, output: Tensor) -> None:
        scaled.append(output.numel())

    return note


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Flatten thop's nested ``{child: (ops, params, children)}`` to its leaves."""
    found: list[tuple[str, float]] = []
    for child, (ops, _, below) in tree.items():
        name = f"{prefix}{child}"
        found += _leaves(below, f"{name}.") if below else [(name, float(ops))]
    return found
