"""Labelled images to a run folder: data, models, training loop, evaluation, tuning."""
