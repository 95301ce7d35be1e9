"""Tuning: many short trainings that a study remembers, then the best of them in full.

    space.yaml ──Space──▶ sampler ─▶ trial ─▶ settings ─▶ cost? ─▶ short training ─▶ accuracy ─▶ the study's storage
    (space)               (study)             (candidate)  (cost)   (candidate)                        │
                            └──────────────────────────────◀─────────────────────────────────────────┘
                                 worker × N (worker), kept running by one process (crew)

    the best K ──trained in full──▶ the best by validation ──▶ runs/<name>/<number>/      (finals)

All that is known of a study is in its storage: a worker may be killed at any time, others may join from any machine.
"""
