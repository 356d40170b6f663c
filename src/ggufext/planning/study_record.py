"""What the study of the γ rule found; written by studies/gamma_rule/report.py."""

from __future__ import annotations

from ggufext.planning.methods import Method
from ggufext.planning.model_records import ModelRecord, beyond_native, compared

#: What is known of the rule, one clause.
STATUS = (
    "the γ rule is derived, not validated by its author; measured against NTK-aware scaling, it "
    "is undecided in keys of small models, worse in loss of a small one, the same in loss of "
    "SmolLM2-135M and its short texts; against YaRN, it is worse in keys of small models and "
    "loss of a small one, undecided in loss of SmolLM2-135M and its short texts"
)

#: What was measured on models.
STUDY: tuple[ModelRecord, ...] = (
    ModelRecord(
        model="SmolLM2-135M-Instruct Q4_1",
        source="docs/gamma-rule.md",
        architecture="llama",
        train_length=8192,
        freq_base=100000.0,
        layers=30,
        heads=(3, 64),
        found=(
            beyond_native(Method.GAMMA, 2, -2.210, (-2.427, -1.994), 4),
            beyond_native(Method.NTK, 2, -2.212, (-2.425, -1.998), 4),
            beyond_native(Method.YARN, 2, -2.220, (-2.427, -2.013), 4),
            beyond_native(Method.GAMMA, 4, -4.656, (-5.198, -4.115), 2),
            beyond_native(Method.NTK, 4, -4.688, (-5.199, -4.177), 2),
            beyond_native(Method.YARN, 4, -4.770, (-5.628, -3.912), 2),
        ),
        comparisons=(
            compared(Method.NTK, 2, "the same", "mean_loss_beyond", 0.001, (-0.003, 0.005), 4),
            compared(Method.YARN, 2, "undecided", "mean_loss_beyond", 0.010, (-0.028, 0.047), 4),
            compared(Method.NTK, 2, "the same", "mean_loss_within", -0.003, (-0.006, -0.000), 4),
            compared(Method.YARN, 2, "undecided", "mean_loss_within", 0.001, (-0.011, 0.013), 4),
        ),
    ),
    ModelRecord(
        model="the language model of the study (3.5 M)",
        source="docs/gamma-rule.md",
        architecture="llama",
        train_length=512,
        freq_base=10000.0,
        layers=4,
        heads=(4, 64),
        found=(
            beyond_native(Method.GAMMA, 2, -1.011, (-1.124, -0.897), 13),
            beyond_native(Method.NTK, 2, -1.059, (-1.175, -0.943), 13),
            beyond_native(Method.YARN, 2, -1.154, (-1.284, -1.025), 13),
            beyond_native(Method.LINEAR, 2, -0.663, (-0.772, -0.553), 13),
            beyond_native(Method.GAMMA, 4, -0.800, (-0.905, -0.695), 13),
            beyond_native(Method.NTK, 4, -0.879, (-0.990, -0.768), 13),
            beyond_native(Method.YARN, 4, -1.467, (-1.586, -1.348), 13),
            beyond_native(Method.LINEAR, 4, -0.563, (-0.681, -0.445), 13),
            beyond_native(Method.GAMMA, 8, -0.849, (-0.926, -0.772), 13),
            beyond_native(Method.NTK, 8, -0.890, (-0.964, -0.816), 13),
            beyond_native(Method.YARN, 8, -1.601, (-1.689, -1.512), 13),
            beyond_native(Method.LINEAR, 8, -0.370, (-0.469, -0.270), 13),
        ),
        comparisons=(
            compared(Method.NTK, 4, "worse", "mean_loss_beyond", 0.079, (0.053, 0.104), 13),
            compared(Method.YARN, 4, "worse", "mean_loss_beyond", 0.667, (0.609, 0.725), 13),
        ),
    ),
)
