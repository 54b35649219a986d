"""The `instrument-recognition` pipeline: the files that are stored beside every saved model, and how they get there."""
