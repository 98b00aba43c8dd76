"""Whether norms are put back for the fine-tuning of a job."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.config.settings import PruneConfig
from onnxprune.data.specs import fixed_batch
from onnxprune.job.inputs import JobData
from onnxprune.training.norms import lacks_norms, restore_norms


def restore(model: ir.Model, data: JobData, config: PruneConfig) -> int:
    """Put norms back, in place, if there is fine-tuning and the settings ask for it; returns their number."""
    if data.training is None or config.restore_norms == "never":
        return 0
    batch = fixed_batch(data.specs) or config.batch_size
    if config.restore_norms == "auto" and not lacks_norms(model, len(data.training), batch):
        return 0
    return restore_norms(model, by_filter=config.pattern != "channel")
