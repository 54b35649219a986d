"""The figures of the protocol, their song bootstrap and trivial baselines; `irmas_metric.py` is the `evaluate` module."""
