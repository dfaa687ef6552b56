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

from ghostify.cost.budget import Cost
from ghostify.errors import CountError
from ghostify.graph.probe import Probe, copy_model, sentence
from ghostify.graph.trace import CONVOLUTIONS
from ghostify.nn.ghost import ChannelScale, GhostModule
from ghostify.spec import ConvSite

__all__ = [
    "Counted",
    "SecondOpinion",
    "agrees",
    "check_against_sites",
    "check_conversion",
    "count",
    "count_params",
    "second_opinion",
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


def count(probe: Probe) -> Counted:
    """Count the multiply-adds of one forward pass in eval mode.

    The authority is ``torch.utils.flop_counter``, which counts two for each; it has no
    formula for products per channel, so those of d = 1 Ghost modules are added from the
    shapes that they saw. Operators that multiply and add but have no formula are listed.

    Raises:
        InputError: the network does not accept the example.
    """
    while True:
        model = probe.model
        scaled: list[int] = []
        ran: set[str] = set()
        handles = [
            module.register_forward_hook(_scale_counter(scaled))
            for module in model.modules()
            if isinstance(module, ChannelScale)
        ] + [
            module.register_forward_hook(_name_collector(ran, name))
            for name, module in model.named_modules()
            if isinstance(module, GhostModule)
        ]
        operators = _Operators()
        counter = FlopCounterMode(display=False)
        with operators, counter:
            probe.run()
        for handle in handles:
            handle.remove()
        if probe.model is model:  # else the probe went over to another copy
            break
    by_operator = counter.get_flop_counts().get("Global", {})
    unknown = {
        packet
        for packet in operators.seen
        if packet not in counter.flop_registry
        and (packet.__name__ in _MULTIPLYING or not str(packet).startswith(("aten.", "prim")))
    }
    scales = sum(scaled)
    return Counted(
        macs=counter.get_total_flops() // 2 + scales,
        conv_macs=_of_convolutions(by_operator) // 2,
        ghosts=frozenset(ran),
        modules={
            name.partition(".")[2]: (_of_convolutions(flops) // 2, sum(flops.values()) // 2)
            for name, flops in counter.get_flop_counts().items()
        },
        uncounted=tuple(sorted(str(packet) for packet in unknown)),
    )


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


def check_conversion(counted: Cost, expected: Cost, *, model: str) -> None:
    """Make sure that a converted network costs what eq. 4 and 5 say.

    Raises:
        CountError: it does not.
    """
    for what, found, wanted in (
        ("multiply-adds by eq. 4", counted.macs, expected.macs),
        ("parameters by eq. 5", counted.params, expected.params),
    ):
        if found != wanted:
            raise CountError(
                f"the converted {model} should have {wanted} {what}, but {found} are counted; "
                "the conversion cannot be trusted"
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
