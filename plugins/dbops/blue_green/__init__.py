"""Blue/Green rehearsal: what an upgrade breaks, how long it is down, which SwitchoverTimeout works, and what it costs.

The DAG's operators call :mod:`steps`, :mod:`attempts`, :mod:`waits` and :mod:`results`, which go on from the :mod:`journal`; :mod:`summary`
is the report. Below them:

    AWS           :mod:`blue` makes, :mod:`teardown` and :mod:`janitor` remove, :mod:`rails` guard by the tags of :mod:`resources`;
                  :mod:`attempt` and :mod:`readiness` judge with :mod:`switchover`; :mod:`control` asks before; :mod:`estimate` prices
    MySQL         :mod:`preflight`, :mod:`load`, :mod:`replication`, :mod:`checks`, :mod:`compare`, :mod:`holders`
    beside a run  :mod:`probes`, :mod:`arms` and :mod:`witness` are processes of their own; :mod:`recording` is what probes write,
                  :mod:`outages`, :mod:`acknowledged` and :mod:`lag` compute from it, :mod:`ladder` and :mod:`timeline` show it

Only ``operators`` and the package ``aws`` (in the style of Airflow's amazon provider, usable without the rest) import Airflow.
"""
