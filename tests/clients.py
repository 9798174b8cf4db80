"""What makes AWS clients cheap: a run of a DAG makes dozens, each with a session of its own."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def read_files_once() -> None:
    """Sessions of this process share what botocore reads, and the names of its events.

    Each reads the same megabytes of JSON and looks into the same four hundred folders otherwise: a third of a second.
    """
    from botocore.hooks import EventAliaser
    from botocore.loaders import JSONFileLoader, Loader

    read, look, begin = JSONFileLoader.load_file, Loader.list_available_services, EventAliaser.__init__
    names: dict[str, str] = {}
    documents: dict[str, Any] = {}
    services: dict[tuple[str, ...], list[str]] = {}

    def load_file(self: JSONFileLoader, path: str) -> Any:
        if path not in documents:
            documents[path] = read(self, path)
        return documents[path]

    def list_available_services(self: Loader, type_name: str) -> list[str]:
        key = (*self.search_paths, type_name)
        if key not in services:
            services[key] = look(self, type_name)
        return list(services[key])

    def begin_with_names(self: EventAliaser, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        self._alias_name_cache = names  # of the aliases that every session has

    JSONFileLoader.load_file = load_file
    Loader.list_available_services = list_available_services
    EventAliaser.__init__ = begin_with_names


@cache
def ask_no_stack() -> None:
    """The user agent names no operator.

    To name it, the provider has `inspect` look for the source of every frame below the call, among all modules: some tenths of a second.
    """
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    AwsGenericHook._get_caller = lambda *_: "tests"
