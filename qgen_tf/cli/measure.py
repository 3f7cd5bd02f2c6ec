"""`qgen-measure`: measures one trained model."""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from qgen_tf.cli import execution, program
from qgen_tf.config import default_config

MANUAL = """\
Measures a trained model: accuracy, loss and generalization gap with their
intervals, bin width and noise of each layer, and flatness in whatever sense is
asked for. Writes measures.json into the run directory, result by result: what
was measured with the same settings is not measured again.

Measures (their definitions are in the docstrings of qgen_tf.measures):
  average_sharpness         rise in loss under Gaussian noise on the weights
  [adaptive_]l2_sharpness   largest rise in loss within a ball
  [adaptive_]linf_sharpness largest rise in loss within a box
  l2_error_sharpness, linf_error_sharpness
                            the same for the error, in points
  l2_m_sharpness            mean over batches of the largest rise in each
  sam_sharpness, sam_m_sharpness, asam_sharpness
                            rise in loss after the step of SAM or ASAM
  pac_bayes_sigma           noise that costs 0.1 of the accuracy
  sharpness_alpha           worst-case offset that costs 0.1 of the accuracy
  {pac_bayes,sharpness}_{init,orig,flatness,mag_init,mag_orig,mag_flatness}
                            the twelve of Jiang et al. 2020
  hessian_trace, hessian_top_eigenvalue
                            curvature of the loss
  regularization_hessian, regularization_gauss_newton
                            what rounding adds to the loss, to second order
  generalization_bound      bound on the loss, given the rounding noise
  parameter_norm, distance_from_initialization, frobenius_product,
  spectral_product, path_norm, margin_percentile
                            baselines
  loss_rises                what rounding a float model costs at several bits,
                            predicted, simulated and measured

Examples:
  qgen-measure --run_dir=runs/quickstart-w4a8-0123abcd --measures=all
  qgen-measure --run_dir=runs/quickstart-w4a8-0123abcd \\
      --measures=average_sharpness --settings.num_examples=0 \\
      --settings.average_sharpness.num_samples=100
      on all training examples, with more noise draws
  qgen-measure --run_dir=runs/quickstart-w4a8-0123abcd \\
      --tflite=runs/quickstart-w4a8-0123abcd/export/model.tflite
      of the weights that are in the file; writes measures-model.json
"""

_RUN_DIR = flags.DEFINE_string("run_dir", None, "written by qgen-train.")
_MEASURES = flags.DEFINE_list(
    "measures",
    None,
    "names, separated by commas; all for every measure that the model has; "
    "those of the settings if left away.",
)
_TFLITE = flags.DEFINE_string(
    "tflite",
    None,
    "a TensorFlow Lite file of the run: its weights are read back and measured "
    "in the place of those that were trained, the rest of the network being "
    "that of the run; they go to measures-<stem of the file>.json.",
)
_SETTINGS = config_flags.DEFINE_config_dict(
    "settings",
    default_config().measures,
    help_string=(
        "what is measured and how; --settings.FIELD=VALUE changes a field. "
        "The fields are those of `measures` in a config."
    ),
)
_STRATEGY = execution.define_strategy()
_DETERMINISTIC = execution.define_deterministic()


def _main() -> None:
    run_dir = program.require(_RUN_DIR)
    from qgen_tf.study import measuring, tables

    settings = _SETTINGS.value
    if _MEASURES.value:
        settings.names = tuple(_MEASURES.value)
    with execution.scope(_STRATEGY, _DETERMINISTIC, seed=0):
        record = measuring.measure(run_dir, settings, tflite=_TFLITE.value)
    print(tables.measures_text(record))


def main() -> None:
    """Runs the program."""
    program.run(
        _main,
        MANUAL,
        (
            _RUN_DIR,
            _MEASURES,
            _TFLITE,
            _SETTINGS,
            _STRATEGY,
            _DETERMINISTIC,
        ),
    )


if __name__ == "__main__":
    main()
