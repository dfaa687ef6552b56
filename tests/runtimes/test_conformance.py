"""What every runtime must do, run over all that are here."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghostify.errors import InputError, RuntimeFailedError
from ghostify.runtimes import RUNTIMES, find_runtime
from ghostify.runtimes import _adapter as adapter
from ghostify.runtimes.base import NodeTime, Profiler, Runtime, Session

SIDE = 16
CLOSE = {"cuda": 5e-3, "cuda-graphs": 5e-3}  # whose convolutions may compute in TF32


class TwoOutputs(nn.Module):
    """A small network with a branch, batch norms that do something, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.deep = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        maps = torch.relu(self.norm(self.stem(image)))
        deep = torch.relu(self.deep(maps) + maps)
        return self.head(deep.mean((2, 3))), deep


@pytest.fixture(scope="module")
def network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = TwoOutputs()
    for tensor in (*model.parameters(), model.norm.running_mean):
        tensor.data = torch.randn(tensor.shape, generator=generator) / 4
    return model.train()


@pytest.fixture(scope="module", params=list(RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    why = adapter(request.param).missing()
    if why is not None:
        pytest.skip(why)
    return find_runtime(request.param)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where temporary files go, so that those that stay are seen."""
    folder = tmp_path_factory.mktemp("scratch")
    patch = pytest.MonkeyPatch()
    cache = tmp_path_factory.mktemp("compiled")  # which torch.compile keeps on purpose
    patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    patch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def session(runtime: Runtime, network: nn.Module, scratch: Path) -> Iterator[Session]:
    """One session for the tests that do not end it."""
    made = runtime.prepare(network, (image(1),), threads=1)
    yield made
    made.close()


def image(batch: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, SIDE, SIDE, generator=generator)


def expected(network: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        outputs: tuple[Tensor, ...] = copy.deepcopy(network).eval()(*inputs)
    return outputs


def difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    assert [one.shape for one in found] == [one.shape for one in wanted]
    return max(
        float((one - two).abs().max() / two.abs().max())
        for one, two in zip(found, wanted, strict=True)
    )


def test_outputs_are_those_of_eager_torch(
    runtime: Runtime, session: Session, network: nn.Module
) -> None:
    for seed in (1, 2):
        inputs = image(1, seed)

        worst = difference(session.run(inputs), expected(network, inputs))
        assert worst < CLOSE.get(runtime.name, 1e-4)


def test_the_same_input_gives_the_same_output(session: Session) -> None:
    first, second = session.run(image(1)), session.run(image(1))

    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_outputs_stay_when_the_session_runs_again(session: Session) -> None:
    kept = session.run(image(1))
    before = [tensor.clone() for tensor in kept]
    session.run(image(1, seed=7))

    assert all(torch.equal(one, two) for one, two in zip(kept, before, strict=True))
    assert all(tensor.device.type == "cpu" for tensor in kept)


def test_time_is_seconds_of_all_repeats(session: Session) -> None:
    assert session.time(3) > 0


def test_timing_changes_no_output(session: Session) -> None:
    before = session.run(image(1))
    session.run(image(1, seed=9))
    session.time(2)

    assert difference(session.run(image(1)), before) < 1e-6


def test_the_callers_threads_and_generator_are_left_alone(
    session: Session, runtime: Runtime
) -> None:
    before, state = torch.get_num_threads(), torch.get_rng_state()
    session.run(image(1))
    session.time(1)

    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_of_two_and_two_threads(runtime: Runtime, network: nn.Module, scratch: Path) -> None:
    """The caller's network stays as it was, no file is left, and a closed session refuses."""
    state = {name: value.clone() for name, value in network.state_dict().items()}
    files = sorted(scratch.rglob("*"))
    here = sorted(Path.cwd().iterdir())
    threads = torch.get_num_threads()

    session = runtime.prepare(network, (image(2),), threads=2)
    worst = difference(session.run(image(2, 5)), expected(network, image(2, 5)))
    assert worst < CLOSE.get(runtime.name, 1e-4)
    session.close()
    session.close()

    with pytest.raises(RuntimeFailedError, match="is closed; prepare the network again"):
        session.run(image(2))
    with pytest.raises(RuntimeFailedError, match="is closed"):
        session.time(1)
    assert torch.get_num_threads() == threads
    assert sorted(scratch.rglob("*")) == files
    assert sorted(Path.cwd().iterdir()) == here
    assert network.training
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


@pytest.mark.parametrize("threads", [0, -1, True, 1.5])
def test_impossible_threads_are_refused(runtime: Runtime, network: nn.Module, threads: int) -> None:
    with pytest.raises(InputError, match="threads is a whole number from 1 on"):
        runtime.prepare(network, (image(1),), threads=threads)


def test_an_input_that_is_no_tensor_is_refused(runtime: Runtime, network: nn.Module) -> None:
    with pytest.raises(InputError, match="arguments are tensors"):
        runtime.prepare(network, ([image(1)],), threads=1)  # type: ignore[list-item]


def test_it_says_what_it_is(runtime: Runtime) -> None:
    assert runtime.name in RUNTIMES
    assert runtime.version()
    assert runtime.device()


def test_profiles_name_the_layers(runtime: Runtime, network: nn.Module, scratch: Path) -> None:
    if not isinstance(runtime, Profiler):
        pytest.skip(f"{runtime.name} does not profile")
    files = sorted(scratch.rglob("*"))
    nodes = runtime.profile(network, (image(1),), threads=1, runs=3)

    layers = [node.layer for node in nodes if node.layer]
    assert all(isinstance(node, NodeTime) and node.ms >= 0 for node in nodes)
    assert {"stem", "deep", "head"} <= set(layers)
    assert layers.index("stem") < layers.index("deep") < layers.index("head")
    assert sorted(scratch.rglob("*")) == files


def test_one_thread_takes_one_core(runtime: Runtime, session: Session) -> None:
    if runtime.device() != "cpu":
        pytest.skip("threads have no meaning there")
    cpu, wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < 0.1:
        session.time(20)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall

    assert cpu < 1.3 * wall


def test_a_session_of_one_thread_starts_no_more(session: Session) -> None:
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("only Linux lists threads")
    session.time(1)
    before = len(list(tasks.iterdir()))
    session.time(5)

    assert len(list(tasks.iterdir())) <= before
