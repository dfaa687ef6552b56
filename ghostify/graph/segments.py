"""Cut a network into segments that run one after another, on batch after batch."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ghostify.graph.probe import Call, copy_model, sentence
from ghostify.graph.trace import CONVOLUTIONS, NetworkTracer, trace

__all__ = ["Segment", "Segments", "State", "is_batch_norm"]

_LONG = 8  # layers of a segment, from which on it may end where several tensors are alive
_OTHERS = 2  # layers without interest that a segment takes along behind its own

State = dict[str, Any]
"""What is alive between two segments: values of graph nodes by the nodes' names."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the network between two points at which one tensor only is alive.

    ``layers`` are the layers of interest that it runs, in order; ``alive`` names what is
    left behind it.
    """

    nodes: tuple[fx.Node, ...]
    layers: tuple[str, ...]
    alive: tuple[str, ...]
    modules: tuple[str, ...]  # all modules that it calls

    @property
    def last(self) -> bool:
        """Whether the network's output comes out behind it."""
        return not self.alive


class Segments:
    """A network as a row of segments; one row runs the original and its conversions alike.

    A segment ends where the next layer of interest is about to begin, if one tensor only is
    alive there (and any sizes): a residual block is one segment, a plain convolution with its
    batch norm and activation another. Where there is no such place for eight layers, as in a
    dense block or a U-Net, it ends where fewest tensors are alive. What comes before the first
    layer of interest, more than two other layers between two of them, and the head behind the
    last feature map are segments without layers. Where the network cannot be traced, or its
    graph does not compute what the network does, the whole network is one segment and ``note``
    says why.

    Args:
        model: the original, in eval mode.
        layers: names of the layers of interest.
        example: ``(N, C, H, W)``.
        converted: the same network where it has fewer maps in places, or None; no segment ends
            there, for the states of the two could not be compared.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        example: Tensor,
        *,
        converted: nn.Module | None = None,
    ) -> None:
        self.note = ""
        self.graph: fx.Graph | None = None
        self.homes: Mapping[fx.Node, tuple[str, ...]] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {}  # of the nodes that give a tensor
        self._traced = model
        self._runners: dict[nn.Module, _Runner] = {}  # which list all modules when they are made
        try:
            self._traced = copy_model(model, hooks=False).eval()
            self.graph = trace(self._traced, Call((example,), {}), tracer=_LayerTracer())
            self._input = next(node for node in self.graph.nodes if node.op == "placeholder")
            self.homes = _homes(self.graph, model, layers)
            self.row = tuple(_row(self.graph, self.homes, self._look(model, example, converted)))
        except Exception as error:
            self.graph, self.homes = None, {}
            self.note = (
                "fitted as one piece, since torch.fx cannot cut the network "
                f"({type(error).__name__}: {sentence(error)})"
            )
            names = tuple(name for name, _ in model.named_modules())
            self.row = (Segment((), tuple(layers), (), names),)

    def start(self, images: Tensor) -> State:
        """Return the state before the first segment."""
        return {"" if self.graph is None else self._input.name: images}

    def run(self, model: nn.Module, segment: Segment, state: State) -> State:
        """Run one segment of ``model``; return the state behind it and leave ``state`` alone.

        The state behind the last segment holds the network's output under ``"output"``.
        """
        fresh = {name: _own(value) for name, value in state.items()}
        if self.graph is None:
            return {"output": model(fresh[""])}
        env = self._evaluated(model, segment.nodes, fresh)
        if segment.last:
            return {"output": env[segment.nodes[-1].name]}
        return {name: env[name] for name in segment.alive}

    def _evaluated(
        self, model: nn.Module, nodes: Sequence[fx.Node], env: dict[str, Any]
    ) -> dict[str, Any]:
        assert self.graph is not None
        if model not in self._runners:
            self._runners[model] = _Runner(model, self._traced, self.graph)
        runner = self._runners[model]
        for node in nodes:
            if node.name in env:
                continue
            if node.op == "placeholder":
                env[node.name] = node.args[0] if node.args else None
                continue
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda one: env[one.name])
            env[node.name] = getattr(runner, node.op)(node.target, args, kwargs)
        return env

    def _look(self, model: nn.Module, example: Tensor, converted: nn.Module | None) -> _Looks:
        """Run the graph, make sure that it computes what the network computes, and look at it."""
        assert self.graph is not None
        with torch.no_grad():
            expected = model(example.clone())
            start = {name: _own(value) for name, value in self.start(example).items()}
            env = self._evaluated(model, tuple(self.graph.nodes), start)
        found = env[next(reversed(self.graph.nodes)).name]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        self.shapes = {
            name: tuple(value.shape) for name, value in env.items() if isinstance(value, Tensor)
        }
        narrower: frozenset[str] = frozenset()
        if converted is not None:
            with torch.no_grad():
                start = {name: _own(value) for name, value in self.start(example).items()}
                fewer = self._evaluated(converted, tuple(self.graph.nodes), start)
            narrower = frozenset(
                name for name, shape in self.shapes.items() if fewer[name].shape != shape
            )
        return _Looks(
            narrower=narrower,
            sizes=frozenset(name for name, value in env.items() if not _holds_tensors(value)),
            maps=frozenset(name for name, value in env.items() if _is_map(value)),
            weighty=frozenset(
                node.name
                for node in self.graph.nodes
                if node.op == "call_module"
                and isinstance(model.get_submodule(str(node.target)), (*CONVOLUTIONS, nn.Linear))
            ),
        )


@dataclass(frozen=True, slots=True)
class _Looks:
    """Names of nodes that give sizes only, that give maps, and that are layers with weights.

    ``narrower`` are those that give fewer maps in the converted network.
    """

    sizes: Set[str]
    maps: Set[str]
    weighty: Set[str]
    narrower: Set[str] = frozenset()


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module scales and shifts its maps by kept statistics in eval mode."""
    if type(module).__name__ == "FrozenBatchNorm2d":
        return True
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


class _LayerTracer(NetworkTracer):
    """A tracer that leaves batch norms whole, but looks into torchvision's blocks of layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module becomes one node of the graph."""
        if is_batch_norm(m):
            return True
        if type(m).__module__ == "torchvision.ops.misc":
            return False
        return super().is_leaf_module(m, module_qualified_name)


class _Runner(fx.Interpreter):
    """Runs nodes with the layers of any model that has layers of the same names."""

    def __init__(self, model: nn.Module, traced: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self._traced_model = traced

    def fetch_attr(self, target: str) -> Any:
        try:
            return operator.attrgetter(target)(self.module)
        except AttributeError:  # a constant that tracing made
            return operator.attrgetter(target)(self._traced_model)


def _own(value: Any) -> Any:
    """Copy every tensor, so that operations in place cannot reach what is stored."""
    return tree_map_only(Tensor, torch.clone, value)


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


def _is_map(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4 and value[0, 0].numel() > 1


def _homes(
    graph: fx.Graph, model: nn.Module, layers: Sequence[str]
) -> dict[fx.Node, tuple[str, ...]]:
    """Return which nodes of the graph run which of the layers."""
    wanted = {id(model.get_submodule(name)): name for name in layers}
    homes: dict[fx.Node, tuple[str, ...]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            inside = model.get_submodule(str(node.target)).modules()
            homes[node] = tuple(wanted[id(module)] for module in inside if id(module) in wanted)
    missing = set(layers) - {name for names in homes.values() for name in names}
    if missing:
        raise LookupError(f"its graph does not show {min(missing)}")
    return homes


def _row(
    graph: fx.Graph, homes: Mapping[fx.Node, tuple[str, ...]], looks: _Looks
) -> Iterator[Segment]:
    """Yield the segments: everything up to the last cut before the next layer."""
    constant = _constants(graph)
    nodes = [node for node in graph.nodes if node not in constant]
    alive = _alive(nodes)
    begin, held = 0, list[str]()
    others = 0  # layers without interest since the last cut or layer of interest
    narrow: int | None = None  # the last place where one tensor only is alive
    least: int | None = None  # the last of those with fewest, behind the latest layer
    least_count = 0
    mapped: int | None = None  # the last place behind the latest layer where that is a map
    for position, node in enumerate(nodes):
        inside = homes.get(node, ())
        cut: int | None = None
        if inside and held:
            cut = least if narrow is None and len(held) >= _LONG else narrow
        elif (inside and others) or (node.name in looks.weighty and held and others >= _OTHERS):
            cut = narrow
        if cut is not None:
            yield _segment(nodes[begin : cut + 1], held, alive[cut], constant)
            begin, held, others = cut + 1, [], 0
        if inside:
            held += [name for name in inside if name not in held]
            others = 0
        if inside or cut is not None:
            narrow = least = mapped = None
        others += not inside and node.name in looks.weighty
        tensors = [name for name in alive[position] if name not in looks.sizes]
        if node.op == "placeholder" or not tensors or not looks.narrower.isdisjoint(tensors):
            continue
        if len(tensors) == 1:
            narrow = position
            mapped = position if tensors[0] in looks.maps else mapped
        if least is None or len(tensors) <= least_count:
            least, least_count = position, len(tensors)
    if held and mapped is not None and mapped + 1 < len(nodes) - 1:  # more than the output
        yield _segment(nodes[begin : mapped + 1], held, alive[mapped], constant)
        begin, held = mapped + 1, []
    yield _segment(nodes[begin:], held, (), constant)


def _alive(nodes: Sequence[fx.Node]) -> list[tuple[str, ...]]:
    """Return what is still needed behind each node."""
    places = {node: position for position, node in enumerate(nodes)}
    ends = {node: max((places[user] for user in node.users), default=-1) for node in nodes}
    found = []
    alive: list[fx.Node] = []
    for position, node in enumerate(nodes):
        alive = [one for one in (*alive, node) if ends[one] > position]
        found.append(tuple(one.name for one in alive))
    return found


def _segment(
    nodes: Sequence[fx.Node],
    layers: Sequence[str],
    alive: tuple[str, ...],
    constant: Mapping[fx.Node, None],
) -> Segment:
    needed: dict[fx.Node, None] = {}
    queue = [source for node in nodes for source in node.all_input_nodes if source in constant]
    while queue:
        node = queue.pop()
        needed[node] = None
        queue += [source for source in node.all_input_nodes if source not in needed]
    first = [node for node in constant if node in needed]
    modules = tuple(dict.fromkeys(str(node.target) for node in nodes if node.op == "call_module"))
    return Segment((*first, *nodes), tuple(layers), alive, modules)


def _constants(graph: fx.Graph) -> dict[fx.Node, None]:
    """Return the nodes that do not depend on the images, in order; each segment has its own."""
    constant: dict[fx.Node, None] = {}
    image_seen = False
    for node in graph.nodes:
        if node.op == "placeholder":
            if image_seen:
                constant[node] = None
            image_seen = True
        elif node.op == "get_attr" or (
            node.op in ("call_function", "call_method")
            and node.all_input_nodes
            and all(source in constant for source in node.all_input_nodes)
        ):
            constant[node] = None
    return constant
