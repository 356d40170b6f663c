"""What the study of the γ rule found; written by studies/gamma_rule/report.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggufext.planning.model_records import ModelRecord

#: What is known of the rule, one clause.
STATUS = (
    "the γ rule is derived, not validated by its author, and this project's study of it is not "
    "complete"
)

#: What was measured on models.
STUDY: tuple[ModelRecord, ...] = ()
