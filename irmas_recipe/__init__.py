"""Train, measure and share instrument recognisers: models, training, reports, baselines and commands."""
