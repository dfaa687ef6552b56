"""What a user types about images."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ghostify.cli.data_options import read_data_request
from ghostify.cli.options import UsageError
from ghostify.data.preprocess import preprocess_of
from ghostify.models import zoo


def test_options_become_settings_of_images() -> None:
    request = read_data_request(
        {
            "data": Path("images"),
            "split": "val",
            "mean": "127/255",
            "std": "0.5, .25,1e-1",
            "resize": 256,
            "crop": "224x192",
            "interpolation": "bicubic",
            "augment": "randaugment",
            "workers": 3,
            "batch_size": 64,
        }
    )

    assert request.require() == Path("images")
    assert (request.split, request.workers, request.batch_size) == ("val", 3, 64)
    built = zoo.build("resnet20_cifar")
    preprocess = preprocess_of(built.model, built.origin, (3, 32, 32), **request.overrides)
    assert preprocess.to_json() == {
        "channels": 3,
        "size": [224, 192],
        "resize": 256,
        "mean": [127 / 255] * 3,
        "std": [0.5, 0.25, 0.1],
        "interpolation": "bicubic",
        "augment": "randaugment",
    }


def test_what_is_not_given_is_left_to_the_network() -> None:
    request = read_data_request({"data": None, "crop": None, "workers": 0})

    assert request.overrides == {}
    with pytest.raises(UsageError, match="there are no images; give them by --data PATH"):
        request.require()


def test_one_side_makes_a_square() -> None:
    assert read_data_request({"crop": "32"}).overrides == {"size": (32, 32)}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mean": "red"}, "--mean is written 0.485,0.456,0.406 or 127/255 (got 'red')"),
        ({"mean": "1/0"}, "--mean is written 0.485,0.456,0.406 or 127/255 (got '1/0')"),
        ({"mean": ""}, "--mean is written 0.485,0.456,0.406 or 127/255 (got '')"),
        ({"std": "nan"}, "--std is written 0.485,0.456,0.406 or 127/255 (got 'nan')"),
        ({"std": "1,2"}, "--std takes one number, or one for each of 3 channels (got '1,2')"),
        ({"crop": "0"}, "--crop is written 224 or 224x320, from 1 up (got '0')"),
        ({"crop": "3x224x224"}, "--crop is written 224 or 224x320, from 1 up (got '3x224x224')"),
        ({"interpolation": "cubic"}, "--interpolation knows no 'cubic'; did you mean bicubic?"),
        (
            {"augment": "x"},
            "--augment knows no 'x'; choose from none, flip, cifar, imagenet, randaugment, "
            "trivialaugment",
        ),
    ],
)
def test_what_is_written_otherwise_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_data_request(params)

    assert str(caught.value) == message


def test_the_options_need_no_torch() -> None:
    script = "import sys, ghostify.cli.data_options; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
