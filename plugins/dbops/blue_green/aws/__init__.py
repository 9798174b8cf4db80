"""What the Amazon provider lacks for RDS: Blue/Green deployments, clusters and their parameter groups. In the provider's own style.

Operators, sensors, triggers and links are Airflow's face of :mod:`dbops.blue_green.attempt`, :mod:`dbops.blue_green.readiness` and
:mod:`dbops.blue_green.switchover`, which know no Airflow.
"""
