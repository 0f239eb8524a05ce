"""The rule that tells images unlike the training images."""

import pytest
import torch

from pipeline.fitting.familiar import MOST_REFERENCES, USUAL, fit_familiar


def clouds(cases, images, seed=0, spread=3.0):
    """Means of images around the centre of their case, and the cases."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(cases, 8, generator=generator) * spread
    means = centres.repeat_interleave(images, 0)
    means = means + torch.randn(means.shape, generator=generator)
    return means, torch.arange(cases).repeat_interleave(images)


def test_one_in_twenty_images_of_a_new_patient_is_called_unlike_and_every_far_one():
    fitted, new = (clouds(200, 10, seed) for seed in (0, 1))
    distances = fit_familiar(*fitted).distances(new[0])
    assert (distances > 1).float().mean().item() == pytest.approx(1 - USUAL, abs=0.02)
    assert (fit_familiar(*fitted).distances(new[0] + 30) > 1).all()


def test_the_other_images_of_the_same_patient_do_not_make_the_limit_narrow():
    means, cases = clouds(10, 20, spread=20.0)
    by_case = fit_familiar(means, cases).limit
    by_image = fit_familiar(means, torch.arange(len(means))).limit
    assert by_case > 3 * by_image


def test_a_training_image_is_at_distance_zero_and_the_limit_is_at_one():
    means, cases = clouds(6, 5)
    familiar = fit_familiar(means, cases)
    assert familiar.distances(means).max() < 1e-3
    alone = familiar.references.mean(dim=0) + 1000.0
    expected = torch.linalg.vector_norm(means - alone, dim=1).min() / familiar.limit
    assert familiar.distances(alone[None]).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_patient_alone_is_compared_with_itself():
    means, _ = clouds(1, 20)
    familiar = fit_familiar(means, torch.zeros(20, dtype=torch.int64))
    assert 0.5 < familiar.limit < 20


def test_images_that_are_all_alike_leave_a_limit_that_others_exceed():
    familiar = fit_familiar(torch.ones(4, 3), torch.arange(4))
    assert familiar.limit > 0
    assert familiar.distances(torch.full((1, 3), 1.1)).item() > 1


def test_of_very_many_images_a_bounded_number_is_remembered():
    means, cases = clouds(100, 100)
    assert len(fit_familiar(means, cases).references) <= MOST_REFERENCES
