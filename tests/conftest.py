"""Environment of every test.

A throw-away AIRFLOW_HOME, set before Airflow is imported, with this repository's DAGs and plugins.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ != "conftest":  # pytest's own name for it
    raise ImportError(
        "write `from conftest import ...`: a second copy of this module would move AIRFLOW_HOME under Airflow's feet"
    )
ROOT = Path(__file__).resolve().parents[1]
HOME = Path(tempfile.mkdtemp(prefix="dbops-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for inherited in [key for key in os.environ if key.startswith(("AIRFLOW__", "AWS_"))]:
    del os.environ[inherited]  # a developer's settings and credentials must not reach a test
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    # dag.test() parses every file of the bundle that its DAG is of, in each run; the tests' own has none.
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(
        [
            {"name": name, "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": path}}
            for name, path in (("dags-folder", str(ROOT / "dags")), ("testing", str(HOME / "none")))
        ]
    ),
    AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY="1",  # seconds: a task that is tried again must not stop the tests for minutes
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS="dba:admin,reader:viewer",
    AIRFLOW__API__BASE_URL="http://airflow.example.com:8080",
    AIRFLOW__API_AUTH__JWT_SECRET="a secret that only the tests know, of the length that SHA-512 wants",
    AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS="False",
    AWS_EC2_METADATA_DISABLED="true",
)
for folder in (ROOT, ROOT / "plugins"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
if worker := os.environ.get("PYTEST_XDIST_WORKER", ""):  # each has a lab of its own
    from lab import config as lab_config

    os.environ.update(lab_config.beside(int(worker.removeprefix("gw"))))

import pytest  # noqa: E402

if TYPE_CHECKING:
    from airflow.sdk import DAG


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need no lab come first: what they say, they say within minutes.

    Among several workers they come last, so that none ends long before the others: a file of them takes seconds, one of the lab minutes.
    """
    items.sort(key=lambda item: (item.get_closest_marker("lab") is not None) is not bool(worker))


@pytest.fixture(scope="session")
def lab_is_up(_clients_do_not_ask_who_makes_them: None) -> None:
    """Fails unless every service of the lab that the environment names is ready."""
    from lab import stack

    down = [state.name for state in stack.status() if not state.ready]
    if down:
        pytest.fail(f"the lab is not up: run make lab-up (not ready: {', '.join(down)})", pytrace=False)


@pytest.fixture(autouse=True)
def _lab_marker_needs_the_lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that is marked `lab` fails without the lab, and finds the lab's connections in its environment."""
    if request.node.get_closest_marker("lab"):
        request.getfixturevalue("lab_is_up")
        from lab import env

        for name, value in env.environment().items():
            if name.startswith("AIRFLOW_CONN_"):
                monkeypatch.setenv(name, value)


ACCOUNT, REGION = "123456789012", "eu-central-1"


@pytest.fixture(scope="session")
def airflow_db() -> None:
    """A migrated metadata database (SQLite); once per session, about five seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"airflow db migrate failed:\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def run_dag(airflow_db: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a DAG object built inside a test with dag.test(); returns the DagRun."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.sdk import DAG
    from airflow.utils.session import create_session

    def run(dag: DAG, **arguments: Any) -> Any:
        with create_session() as session:
            session.merge(DagBundleModel(name="testing"))
        bag = DagBag(dag_folder=os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "testing", None)
        return dag.test(**arguments)

    # It sleeps a second for each level of tasks that are only skipped, and for each look at a task that waits for its retry.
    loop, sleep = DAG.test.__code__, time.sleep
    monkeypatch.setattr(time, "sleep", lambda s: sleep(s / 20 if sys._getframe(1).f_code is loop else s))
    return run


@pytest.fixture(scope="session", autouse=True)
def _botocore_reads_its_files_once() -> None:
    from tests import clients

    clients.read_files_once()


@pytest.fixture(scope="session")
def _clients_do_not_ask_who_makes_them() -> None:
    from tests import clients

    clients.ask_no_stack()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """Address of an AWS simulator in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def dms_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A simulated DMS (`tests.lab.dms_kit.Dms`) with a source and a target of its own; all tests share it, so leave no task running."""
    from tests.lab import dms_kit

    with dms_kit.account(tmp_path_factory.mktemp("dms")) as made:
        yield made


@pytest.fixture
def aws(moto_server: str, _clients_do_not_ask_who_makes_them: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """An emptied simulator behind the Airflow connection `aws_default`; gives its address."""
    import urllib.request

    reset = urllib.request.Request(f"{moto_server}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=10)
    extra = {"region_name": REGION, "endpoint_url": moto_server}
    connection = {"conn_type": "aws", "login": "lab", "password": "lab", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    return moto_server
