"""Many processes over a day, with the engine's own credential cache."""

from tools.chaos.simulation import simulate


def test_processes_that_start_together_do_not_refresh_together():
    summary = simulate(500, 4, per_second=0, interval=2.0, seed=1)

    # 500 refreshes in a quarter of an hour are 0.6 per second. With a jitter of only a
    # tenth of the lifetime, the peak was 8.
    assert summary.peak <= 6
    assert (summary.rejected, summary.errors) == (0, 0)


def test_all_processes_are_served_despite_a_rate_limit():
    summary = simulate(300, 4, per_second=20, interval=2.0, seed=1)

    assert summary.errors == 0
    assert 300 / 20 - 1 < summary.longest_wait < 2 * 300 / 20
    assert summary.peak <= 20
