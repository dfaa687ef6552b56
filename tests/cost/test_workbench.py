"""Networks made ready on real runtimes, in the product's way and in the quick one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ghostify.cost.workbench import Workbench
from ghostify.errors import InputError, RuntimeNotFoundError
from ghostify.graph.rewrite import rewrite
from ghostify.plan import Plan
from ghostify.runtimes import installed
from ghostify.spec import GhostSpec
from tests.cost.bench import network

IMAGE = torch.randn(1, 3, 16, 16)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("draft", [True, False])
def test_a_session_computes_what_the_network_does(runtime: str, draft: bool) -> None:
    if not installed()[runtime]:
        pytest.skip(f"{runtime} is not installed")
    model = rewrite(network(), Plan(dict.fromkeys(("3", "9"), GhostSpec()))).model.eval()

    session = Workbench(runtime).session(model, (IMAGE,), draft=draft)

    [found] = session.run(IMAGE)
    seconds = session.time(2)
    session.close()
    assert torch.allclose(found, model(IMAGE), rtol=1e-4, atol=1e-5)
    assert seconds > 0


def test_conditions_name_runtime_and_versions() -> None:
    conditions = Workbench("torch", threads=2, batch=4).conditions

    assert (conditions.runtime, conditions.threads, conditions.batch) == ("torch", 2, 4)
    assert conditions.version.startswith(f"{torch.__version__}, ghostify ")


def test_what_the_quick_way_does_not_know_goes_the_other_way() -> None:
    """An operator that torch's older exporter has not learnt."""
    if not installed()["onnxruntime"]:
        pytest.skip("onnxruntime is not installed")

    class Odd(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.special.entr(image.abs() + 1)

    session = Workbench("onnxruntime").session(Odd().eval(), (IMAGE,), draft=True)

    assert torch.allclose(session.run(IMAGE)[0], Odd()(IMAGE), atol=1e-5)


def test_a_runtime_that_does_not_exist_and_no_thread_are_refused() -> None:
    with pytest.raises(RuntimeNotFoundError, match="no runtime is called 'tensorrt'"):
        Workbench("tensorrt")
    with pytest.raises(InputError):
        Workbench("torch", threads=0)
