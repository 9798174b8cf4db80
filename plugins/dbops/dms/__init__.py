"""DMS task control: AWS DMS tasks brought to the declared state, and the proof that they replicate.

A DBA declares a task in a :mod:`spec` with its :mod:`mappings` and :mod:`settings`, which :mod:`lint` judges. :mod:`states` turns AWS's
answers into values, :mod:`failures` recognises what goes wrong, :mod:`decision` says what is to be done, and :mod:`plan` orders it.
The proof is apart from what DMS says of itself: :mod:`health` judges metrics and tables, :mod:`canary` follows a row to the target, and
:mod:`reconcile` compares rows.
"""
