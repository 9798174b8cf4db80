"""Query inventory: every SQL statement that runs against a cluster, what it touches, and how much of the truth that list is.

The order of things: :mod:`snapshot` reads one instance, :mod:`history` keeps what it saw, :mod:`parse` and :mod:`resolve` say what a
statement touches, and the judging modules (access, register, tables, fit, upgrade) work on :mod:`model` values alone.
"""
