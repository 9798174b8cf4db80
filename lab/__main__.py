"""``python -m lab <command>``."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from lab import artifacts, config, env, stack
from lab.config import LabError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab", description="The local AWS of dbops, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("setup", help="fetch, check and unpack the servers")
    commands.add_parser("up", help="start everything and wait until it is ready")
    commands.add_parser("down", help="stop everything; data stays")
    commands.add_parser("status", help="show every service; exit status 1 when one is down")
    commands.add_parser(
        "env", help="print the environment for Airflow: source <(python -m lab env), or source .lab/env"
    )
    beside = commands.add_parser("beside", help="print the variables of another lab that may run beside this one")
    beside.add_argument("number", type=int, help="0 is this lab itself")
    commands.add_parser("reset", help="stop everything, delete all data, start anew")
    seed = commands.add_parser("seed", help="fill the schema carshare")
    seed.add_argument("--rows", type=int, required=True, help="cold rows that the table positions shall have")
    seed.add_argument("--hot-rows", type=int, help="rows that are too young to archive (default: a tenth of --rows)")
    seed.add_argument("--server", choices=sorted(config.MYSQL_SERVERS), default="mysql57")
    commands.add_parser("dms", help="make what the example specs of include/specs/dms name; harmless when it is there")
    commands.add_parser(
        "backfill",
        help="make what the example specs of include/specs/backfill name; an application writes and reports; harmless when it is there",
    )
    commands.add_parser("report", help="copy the newest report to .lab/reports and print its path")
    commands.add_parser(
        "demo", help="seed a million cold rows, archive them with airflow dags test, show what was proved"
    )
    move = commands.add_parser(
        "migration", help="move two tables into DynamoDB and Redis under traffic that never stops, and judge the end"
    )
    move.add_argument(
        "--unconditional", action="store_true", help="with what must not be done: the oracle has to find it"
    )
    arguments = parser.parse_args(argv)
    try:
        return run(arguments)
    except LabError as error:
        print(f"lab {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(arguments: argparse.Namespace) -> int:  # noqa: C901 - a command a case
    match arguments.command:
        case "setup":
            artifacts.setup()
        case "up":
            stack.up()
            print(f"the lab is up; for Airflow: source {env.write()}")
        case "down":
            stack.down()
            for number in config.numbers_beside():  # a test run that was killed could not end them
                command = [sys.executable, "-m", "lab", "down"]
                subprocess.run(command, cwd=config.ROOT, env={**os.environ, **config.beside(number)}, check=True)
        case "status":
            states = stack.status()
            print(f"{'SERVICE':<10}{'PID':>9}{'PORT':>7}{'RSS MB':>8}  READY")
            for state in states:
                ready = "yes" if state.ready else "no"
                print(f"{state.name:<10}{state.pid or '-':>9}{state.port:>7}{state.rss_mb or '-':>8}  {ready}")
            return 0 if all(state.ready for state in states) else 1
        case "env":
            print(env.exports(), end="")
        case "beside":
            for name, value in config.beside(arguments.number).items():
                print(f"export {name}={shlex.quote(value)}")
        case "reset":
            stack.reset()
        case "seed":
            from lab import seed  # numpy and pyarrow: only here

            seed.seed(arguments.server, arguments.rows, arguments.hot_rows)
        case "dms":
            from lab import examples

            examples.provision()
        case "backfill":
            from lab.migration import examples as moved

            moved.provision()
        case "demo":
            from lab import demo

            demo.run()
        case "migration":
            from lab.migration import demo as moving

            moving.run(arm="unconditional" if arguments.unconditional else "conditional")
        case "report":
            from lab import aws

            print(aws.newest_report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
