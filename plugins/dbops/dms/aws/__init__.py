"""What the Amazon provider lacks for DMS, or gets wrong, in the provider's own style: knows no spec and no store, usable alone.

Operators, sensors and triggers are Airflow's face of :mod:`dbops.dms.waits`, :mod:`dbops.dms.starting` and
:mod:`dbops.dms.definition`, which know no Airflow.
"""
