"""Writes docs/gamma-rule.md, its pictures and the record that `ggufext plan` shows.

    python studies/gamma_rule/report.py

All of it is made from results/ and models.json alone; what was not run or not learned stands there
as that.
"""

from __future__ import annotations

import argparse

from page import page
from pictures import write_pictures
from record import record
from study import read_study
from trained import HERE

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "gamma-rule.md"
RECORD = ROOT / "src" / "ggufext" / "planning" / "study_record.py"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    study = read_study()
    PAGE.write_text(page(study), encoding="utf-8")
    RECORD.write_text(record(study), encoding="utf-8")
    write_pictures(study, PAGE.parent / "images")


if __name__ == "__main__":
    main()
