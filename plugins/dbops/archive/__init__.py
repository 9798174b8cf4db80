"""The archive room: cold rows from MySQL to Iceberg on S3, verified through Trino, then purged, and restored on demand.

Everything except ``operators`` is plain Python without Airflow.
"""
