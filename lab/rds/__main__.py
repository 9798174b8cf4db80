"""``python -m lab.rds --port N --folder DIR``: the simulated AWS of `lab.aws` with real databases behind RDS and DMS."""

from __future__ import annotations

import argparse
import resource
from pathlib import Path

from lab import aws, config
from lab.dms.backend import install as install_dms
from lab.rds.backend import install
from lab.rds.plane import folder

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lab.rds", description="Serve the simulated AWS with a real RDS.")
    parser.add_argument("--host", default=config.HOST)
    parser.add_argument("--port", type=int, default=config.DEFAULT_PORTS["aws"])
    parser.add_argument("--folder", type=Path, default=folder())
    arguments = parser.parse_args()
    # A client of an endpoint takes two descriptors here and one of mysqld, which inherits the limit and counts its connections by it.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plane = install(arguments.folder)
    install_dms(arguments.folder / "dms", arguments.port, {"dynamodb": config.dynamodb_endpoint()})
    aws.serve(arguments.host, arguments.port, at_end=plane.end)
