"""Images of a search: who fits, who judges, who trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ghostify.data.base import NO_LABEL
from ghostify.data.preprocess import normalise
from ghostify.data.subset import Subset
from ghostify.errors import DataError, InputError
from ghostify.searches.scoring.pictures import draw, invent
from tests.searches.scoring_net import small
from tests.train.toys import PREPROCESS, Synthetic


def numbers(images: torch.Tensor, source: Synthetic) -> set[int]:
    """Find out which images of the source these are."""
    known = {
        normalise(torch.from_numpy(one).permute(2, 0, 1)[None], PREPROCESS)[0].numpy().tobytes(): k
        for k, one in enumerate(source.pixels)
    }
    return {known[one.contiguous().numpy().tobytes()] for one in images}


def test_no_image_judges_that_has_another_part() -> None:
    source = Synthetic(100)

    found = draw(source, PREPROCESS, calibration=30, held_back=20, seed=3)

    fitting, judging = numbers(found.calibration, source), numbers(found.held_back, source)
    assert (len(fitting), len(judging)) == (30, 20)
    assert not fitting & judging
    assert found.supply is not None
    training = {found.supply.images.load(k).tobytes() for k in range(len(found.supply.images))}
    assert len(found.supply.images) == 80
    assert not training & {source.load(k).tobytes() for k in judging}


def test_labels_are_those_of_the_images_held_back() -> None:
    source = Synthetic(60)

    found = draw(source, PREPROCESS, calibration=20, held_back=20, seed=0)

    assert found.labels is not None
    order = [next(iter(numbers(one[None], source))) for one in found.held_back]
    assert found.labels.tolist() == source.labels[order].tolist()


def test_few_images_are_shared_out() -> None:
    found = draw(Synthetic(9), PREPROCESS, calibration=512, held_back=256)

    assert (len(found.calibration), len(found.held_back)) == (6, 3)
    with pytest.raises(DataError, match="takes two at least"):
        draw(Synthetic(1), PREPROCESS)


def test_missing_labels_are_none() -> None:
    source = Synthetic(20)
    source.labels[:] = NO_LABEL

    assert draw(source, PREPROCESS, calibration=5, held_back=5).labels is None


def test_invented_images_differ_in_their_parts() -> None:
    found = invent(small(), (3, 8, 8), calibration=6, held_back=4)

    assert found.calibration.shape == (6, 3, 8, 8)
    assert found.held_back.shape == (4, 3, 8, 8)
    assert not torch.equal(found.calibration[:4], found.held_back)
    assert found.labels is found.supply is None
    with pytest.raises(InputError, match="input size"):
        invent(small(), None)


def test_a_subset_has_its_own_order_and_digest() -> None:
    source = Synthetic(10)

    some = Subset(source, [4, 1])

    assert len(some) == 2
    assert some.labels.tolist() == source.labels[[4, 1]].tolist()
    assert np.array_equal(np.asarray(some.load(0)), source.pixels[4])
    assert len({some.digest, Subset(source, [1, 4]).digest, source.digest}) == 3


def test_making_images_says_how_far_it_is() -> None:
    told: list[tuple[int, int, str]] = []

    invent(
        small(), (3, 8, 8), calibration=4, held_back=4,
        on_progress=lambda done, of, what: told.append((done, of, what)),
    )  # fmt: skip

    assert [done for done, _, _ in told] == list(range(80))  # 40 steps for each part
    assert {of for _, of, _ in told} == {80}
    assert told[0][2] == "steps, images to fit to"
    assert told[-1][2] == "steps, images to judge by"
