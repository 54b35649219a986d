"""The judge of generated clips: its distance, and the parts of the plan that need no training."""

import numpy as np

from experiments.wavegan_row import kernel_distance, name_of


def test_the_distance_is_zero_on_average_for_one_distribution_and_grows_with_the_difference():
    rng = np.random.default_rng(0)
    draws = [rng.normal(size=(200, 6)) for _ in range(2)]
    alike = kernel_distance(*draws)
    assert abs(alike) < 0.1
    assert kernel_distance(draws[0], draws[1] + 1) > kernel_distance(draws[0], draws[1] + 0.5) > 10 * abs(alike)


def test_a_class_is_found_by_its_code_or_its_name():
    assert (name_of("cel", ["cel", "cla"]), name_of("cel", ["cello", "clarinet"])) == ("cel", "cello")
