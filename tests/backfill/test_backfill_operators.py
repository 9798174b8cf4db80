"""Operators of the backfill without a lab: what is refused before anything is opened."""

from __future__ import annotations

from typing import Any

import pytest

from dbops.backfill import operators
from dbops.operators import Stopped

FORM: dict[str, Any] = {
    "spec": "rides_dynamodb", "dry_run": False, "confirm": "rides_dynamodb", "copy": False, "verify": None, "repair": False,
    "bury_extra": False, "abandon_open_plan": False,
}  # fmt: skip


def test_to_bury_without_a_repair_is_refused_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    look = operators.LookOperator(task_id="look")
    monkeypatch.setattr(look, "require_known_conf", lambda _: None)
    monkeypatch.setattr(look, "services", lambda *_: pytest.fail("nothing is to be opened"))
    with pytest.raises(Stopped, match="bury_extra is true and repair is not"):
        look.execute({"params": {**FORM, "bury_extra": True}})  # type: ignore[typeddict-item]
