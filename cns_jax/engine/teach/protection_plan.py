"""What --dry_run says of protection: which prompts it holds, and what that takes."""

from __future__ import annotations

from cns_jax.core.tree import count
from cns_jax.engine.draw.studio import compute_dtype
from cns_jax.engine.settings import RunSettings
from cns_jax.engine.teach.protecting import base_prompts, directions_of, general_file, general_ids, general_prompts
from cns_jax.neurons.score import cross_attention_kernels
from cns_jax.protect.certificate import percent
from cns_jax.text.vocabulary import Vocabulary
from cns_jax.weights.pipeline import Source


def moment_bytes(source: Source) -> int:
    """Of the second moment that is kept of a concept's prompts, protected or not."""
    return 4 * source.model.text_encoder.hidden_size**2


def protection_lines(settings: RunSettings, source: Source, vocabulary: Vocabulary, text_encoder: str) -> list[str]:
    """Nothing where a run is not protected. vocabulary: with all of the run's tokens; text_encoder: its fingerprint.

    Raises SettingsError if protect.captions cannot be read, or asks for an unknown concept.
    """
    if not settings.protects:
        return []
    protect, width = settings.protect, source.model.text_encoder.hidden_size
    prompts, known = general_prompts(settings), base_prompts(source, settings.address)
    general_ids(prompts, vocabulary)  # warns of cuts
    file = general_file(settings, text_encoder, compute_dtype(settings.compute).name, prompts)
    before = f", those of the base model ({', '.join(known)}) included" if known else ""
    outputs = 8 * (count(cross_attention_kernels(source.shapes["unet"])) + width**2)
    lines = [
        f"protects: {len(prompts)} general prompts and every taught concept{before}; "
        f"{directions_of(settings, width)} of {width} directions; {moment_bytes(source) / 1e6:.2g} MB in the run's "
        f"folder a concept, {outputs / 1e6:.3g} MB in memory",
        f"text features of general prompts: {'kept from before' if file.exists() else 'to encode'}; of a concept's "
        f"prompts after its lesson",
    ]
    if protect.limit:
        lines.append(f"promise: no lesson changes an earlier concept's keys or values by over {percent(protect.limit)}")
    return lines
