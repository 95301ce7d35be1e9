"""Labelled pictures become arrays here.

    'digits' ─┐
              ├─▶ Catalogue ──survey──▶ fingerprint, size, modes ──split──▶ decode ──▶ Dataset
    a folder ─┘   (who is where)        (every file read once)              (`server.images`)

A new kind of source is one module that returns a `Catalogue`, and one line in `training.data.sources.catalogue_of`.
"""
