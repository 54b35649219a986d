"""The protocol's figures, their song bootstrap and the trivial baselines; `irmas_metric.py` is the `evaluate` module."""
