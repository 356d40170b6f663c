"""What models are, where they lie, and what they were trained with."""

from __future__ import annotations

from ggufext.arguments import public
from ggufext.header.architectures import Support
from ggufext.header.layers import LayerInFile
from ggufext.locating import places
from ggufext.locating.places import ModelPlace, SurveyedModel
from ggufext.opened import inspection
from ggufext.opened.inspection import Inspection

__all__ = [
    "Inspection",
    "LayerInFile",
    "ModelPlace",
    "Support",
    "SurveyedModel",
    "inspect",
    "known_places",
    "place_of",
    "undo_command",
]

inspect = public(inspection.inspect)
known_places = public(places.known_places)
place_of = public(places.place_of)
undo_command = public(inspection.undo_command)
