"""Sweeps: one experiment over corpus variants and seeds, each cell an ordinary run folder.

``cells`` says what is to be run, ``executors`` where (processes here, or tasks of a Ray cluster), ``work`` runs it and tries
again what failed, ``summary`` puts the cells' rows together.
"""
