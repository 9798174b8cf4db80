"""What the simulated RDS offers: engine versions with their upgrade targets, instance classes, quotas of the account."""

from __future__ import annotations

import itertools
from typing import Any

from lab import config

# Minor versions as AWS numbers them; behind each series stands the lab's one server of it (see `server.engine`).
AURORA = (
    *(f"5.7.mysql_aurora.2.{minor}" for minor in ("07.2", "07.10", "11.1", "11.2", "11.3", "11.4", "11.5", "11.6")),
    *(f"5.7.mysql_aurora.2.{minor}" for minor in ("12.0", "12.1", "12.2", "12.3", "12.4", "12.5")),
    *(f"8.0.mysql_aurora.3.{minor}" for minor in ("01.0", "02.0", "03.0", "04.0", "04.1", "04.2", "04.3", "04.4")),
    *(f"8.0.mysql_aurora.3.{minor}" for minor in ("05.2", "06.0", "06.1", "07.0", "07.1", "08.0", "08.1", "08.2")),
    *(f"8.0.mysql_aurora.3.{minor}" for minor in ("09.0", "10.0", "10.1")),
)
MYSQL = (
    *(f"5.7.{patch}" for patch in (22, 33, 37, 38, 39, 40, 41, 42, 43, 44)),
    *(f"8.0.{patch}" for patch in (15, 28, 32, 33, 34, 35, 36, 37, 39, 40, 41, 42)),
)
VERSIONS = {"aurora-mysql": AURORA, "mysql": MYSQL}
DEFAULTS = {"aurora-mysql": "8.0.mysql_aurora.3.08.2", "mysql": "8.0.40"}
CLASSES = tuple(
    f"db.{family}.{size}"
    for family, sizes in {
        "t3": ("small", "medium", "large"),
        "t4g": ("medium", "large"),
        "r5": ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"),
        "r6g": ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"),
        "r6i": ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"),
        "r7g": ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge"),
        "m6g": ("large", "xlarge", "2xlarge", "4xlarge"),
    }.items()
    for size in sizes
)
QUOTAS = {
    "DBInstances": 40,
    "DBClusters": 40,
    "DBParameterGroups": 50,
    "DBClusterParameterGroups": 50,
    "ManualSnapshots": 100,
    "ManualClusterSnapshots": 100,
    "AllocatedStorage": 100_000,
    "DBSubnetGroups": 50,
    "EventSubscriptions": 20,
    "OptionGroups": 20,
    "ReadReplicasPerMaster": 15,
    "ReservedDBInstances": 40,
}


def series(version: str) -> str:
    """``5.7`` of ``5.7.mysql_aurora.2.11.4``."""
    return ".".join(version.split(".")[:2])


def family(engine: str, version: str) -> str:
    """Family of parameter groups, such as ``aurora-mysql5.7``."""
    return f"{engine}{series(version)}"


def known(engine: str, version: str) -> bool:
    return version in VERSIONS.get(engine, ())


def engine_versions(engine: str | None, version: str | None, of_family: str | None, default: bool) -> list[Any]:
    """`DBEngineVersions` of DescribeDBEngineVersions; every later version of the engine is a valid upgrade target."""
    return [
        _engine_version(each, number)
        for each in VERSIONS
        if engine in (None, each)
        for number in ([DEFAULTS[each]] if default else VERSIONS[each])
        if version in (None, number, series(number)) and of_family in (None, family(each, number))
    ]


def _engine_version(engine: str, version: str) -> dict[str, Any]:
    later = itertools.islice(VERSIONS[engine], VERSIONS[engine].index(version) + 1, None)
    return {
        "Engine": engine,
        "EngineVersion": version,
        "MajorEngineVersion": series(version),
        "DBParameterGroupFamily": family(engine, version),
        "DBEngineDescription": "Aurora MySQL" if engine == "aurora-mysql" else "MySQL Community Edition",
        "DBEngineVersionDescription": version,
        "Status": "available",
        "SupportedEngineModes": ["provisioned"],
        "SupportsReadReplica": True,
        "ValidUpgradeTarget": [
            {
                "Engine": engine,
                "EngineVersion": target,
                "Description": target,
                "AutoUpgrade": False,
                "IsMajorVersionUpgrade": series(target) != series(version),
                "SupportedEngineModes": ["provisioned"],
            }
            for target in later
        ],
    }


def orderable(engine: str, version: str | None, instance_class: str | None) -> list[dict[str, Any]]:
    """`OrderableDBInstanceOptions`: every class for every version, in three zones."""
    zones = [{"Name": f"{config.AWS_REGION}{letter}"} for letter in "abc"]
    return [
        {
            "Engine": engine,
            "EngineVersion": number,
            "DBInstanceClass": each,
            "LicenseModel": "general-public-license",
            "AvailabilityZones": zones,
            "StorageType": "aurora" if engine == "aurora-mysql" else "gp3",
            "Vpc": True,
            "MultiAZCapable": engine == "mysql",
            "ReadReplicaCapable": True,
            "SupportsClusters": engine == "aurora-mysql",
            "SupportsStorageEncryption": True,
            "SupportedEngineModes": ["provisioned"],
        }
        for number in VERSIONS.get(engine, ())
        if version in (None, number)
        for each in CLASSES
        if instance_class in (None, each)
    ]
