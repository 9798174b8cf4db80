"""The archive room: cold rows from MySQL to Iceberg on S3, verified through Trino, then purged, and restored on demand.

Everything except ``operators`` is plain Python without Airflow.
"""

import os

# Arrow's own memory pools keep what they freed; the system's is as fast here and leaves a task 70 MB smaller. Arrow reads this once, when
# it is first imported, so it is set before anything of this room imports it; a deployment's own choice stands.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
