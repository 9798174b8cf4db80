"""Blue/Green rehearsal: what an upgrade breaks, how long it is down, which SwitchoverTimeout works, and what it costs.

:mod:`probes` writes what a client sees to a :mod:`recording`; :mod:`outages`, :mod:`acknowledged` and :mod:`lag` compute figures from it.
:mod:`switchover` judges what AWS says of a switchover, :mod:`ladder` a series of them. :mod:`preflight` asks blue what would break;
:mod:`cost` prices a rehearsal. None of them imports Airflow.
"""
