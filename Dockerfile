# Airflow with what dags/ and plugins/ need, at the versions of requirements.lock and checked against its hashes.
# The DAGs themselves are mounted or copied by whoever runs the image: docker-compose.yaml mounts them.
FROM apache/airflow:3.3.2-python3.11 AS airflow
USER root
# mysqlclient has no Linux wheel.
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential libmariadb-dev pkg-config \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*
USER airflow
WORKDIR /opt/airflow
COPY requirements.txt requirements.lock /opt/dbops/
# The lock as constraints: the image gets the direct requirements and what they need, without the tools of development.
RUN uv pip install --no-cache --require-hashes -r /opt/dbops/requirements.txt -c /opt/dbops/requirements.lock

# The same, plus the lab's simulated AWS.
FROM airflow AS lab
RUN uv pip install --no-cache --require-hashes -r /opt/dbops/requirements.lock
