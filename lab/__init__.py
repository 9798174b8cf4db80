"""The lab: a local AWS data plane without Docker: MySQL 5.7 and 8.0, Trino, simulated AWS. ``python -m lab --help``."""
