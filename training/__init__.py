"""Labelled images in, a trained and measured Keras model out: a run folder.

    settings ──▶ data ──▶ model ──▶ loop ──▶ evaluation ──▶ runs/<name>/<number>/
    (settings)   (data/)  (models/)  (loop)   (metrics, figures)   (runs)

`training.train` reads in exactly that order. Run it as `python -m training --help`.
"""
