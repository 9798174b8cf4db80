"""AWS DMS of the lab: moto's control plane with tasks behind it that really copy rows and follow the binary log."""
