"""Many processes over a day, from the cache's own code."""

from tools.chaos.simulation import simulate


def test_processes_that_start_together_part():
    """After the start no second is busier than chance makes it."""
    found = simulate(500, 4, per_second=0, every=2.0, seed=1)

    # 500 in a quarter of an hour is 0.6 a second: a tenth of a life for chance gave 8.
    assert found.peak <= 6
    assert (found.refused, found.errors) == (0, 0)


def test_all_are_served_within_a_limit():
    """Nobody is forgotten, and once the start is over nobody is refused."""
    found = simulate(300, 4, per_second=20, every=2.0, seed=1)

    assert found.errors == 0
    assert 300 / 20 - 1 < found.waited < 2 * 300 / 20
    assert found.peak <= 20
