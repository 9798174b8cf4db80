"""Amazon RDS of the lab: moto's control plane with real MySQL servers, endpoints and replication behind it."""
