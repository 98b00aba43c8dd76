"""Whether norms are put back for the fine-tuning of a job."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.errors import SettingError
from onnxprune.job.choices.defaults import run_of, run_size
from onnxprune.job.samples.inputs import JobData
from onnxprune.reports.record import Detail
from onnxprune.system.processes import process_count
from onnxprune.training.module.norms import lacks_norms, restore_norms


def restore(model: ir.Model, data: JobData, config: PruneConfig) -> tuple[str, ...]:
    """Put norms back, in place, if there is fine-tuning and the settings ask for it; returns notes about it.

    Raises:
        SettingError: they are asked for, and no layer can have one, or a batch has no statistics.
    """
    if data.training is None or config.restore_norms == "never":
        return ()
    asked = config.restore_norms == "always"
    batch = run_size(config, len(data.training), run_of(data.training)) // process_count()
    if not asked and not lacks_norms(model, len(data.training), batch):
        return ()
    if batch < 2:
        raise SettingError(
            "--restore-norms always needs statistics of batches, and a batch has one sample for each process: give a "
            "larger --batch-size, or --restore-norms never"
        )
    count = restore_norms(model, by_filter=config.pattern != "channel")
    if not count:
        raise SettingError(
            "--restore-norms always finds no layer to put BatchNormalization behind: none that is hidden has a bias "
            "and no norm; remove the flag"
        )
    note = (
        f"For the fine-tuning, BatchNormalization was put back behind {count} layer{'s' * (count > 1)}, and folded "
        "into the weights again at the end: --restore-norms never trains the model as it is."
    )
    return (Detail(note),)
