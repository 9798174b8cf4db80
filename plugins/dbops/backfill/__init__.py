"""Backfill: rows of MySQL into a key-value store under live dual writes, and the proof that no older value won.

A DBA declares in a :mod:`spec` what a row is, which key it gets and what limits hold. :mod:`source` reads rows as writes of
:mod:`dbops.keyvalue`, :mod:`target` is the door to a store, :mod:`journal` holds all that a killed run goes on from.
"""
