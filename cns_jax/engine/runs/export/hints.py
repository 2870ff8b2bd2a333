"""How to use an export's files: lines of Python that run as they stand, or where to put a file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cns_jax.data.prompts import sample_prompts
from cns_jax.engine.runs.export.exporter import Exporter
from cns_jax.engine.runs.source import miniature_folder
from cns_jax.engine.settings import MINIATURE

PYTHON = "with diffusers, in Python:\n"  # what stands behind it runs as it is
_DRAW = "pipe({prompt!r}, num_inference_steps={steps}, guidance_scale={guidance}).images[0].save({picture!r})"
_PLACES = (
    "put {file} into {comfyui} (ComfyUI) or {a1111} (A1111), or install it in InvokeAI's model manager; "
    "embeddings/* go into models/embeddings (ComfyUI) or embeddings (A1111), or are installed like it (InvokeAI); "
    "prompts take {words} (ComfyUI: embedding:{first}; InvokeAI: <{first}>)"
)
_BUNDLED = (
    "put {file} into models/Lora (A1111); prompts take {words}. InvokeAI and diffusers refuse a file that holds "
    "embeddings, and ComfyUI passes over them: leave --bundle_embeddings out there"
)


def how_to(export: Exporter, files: Sequence[Path]) -> str:
    """What to do with the `files` of an export."""
    kind, folder, file = export.request.format, str(export.out.absolute()), files[0].name
    if kind == "diffusers":
        opened = f"pipe = StableDiffusionPipeline.from_pretrained({folder!r}, {_dtype(export.dtype_name)})"
        return _python(export, opened)
    if kind == "single-file":
        return _places(export, file, "models/checkpoints", "models/Stable-diffusion")
    if kind == "lora":
        if export.request.bundle_embeddings:
            return _BUNDLED.format(file=file, words=", ".join(export.words.values()))
        places = _places(export, file, "models/loras", "models/Lora")
        if not export.request.rank:
            return f"{places}; diffusers reads low ranks only (--rank=N)"
        load = f"pipe.load_lora_weights({folder!r}, weight_name={file!r})"
        return f"{places}; {_python(export, _base(export), load, *_embeddings(files[1:]))}"
    if kind == "custom-diffusion":
        load = f"pipe.unet.load_attn_procs({folder!r}, weight_name={file!r}, _pipeline=pipe)"
        return _python(export, _base(export), load, *_embeddings(files[1:]))
    if kind == "textual-inversion":
        places = "copy the files to the embeddings folder of ComfyUI or A1111; "
        return places + _python(export, _base(export), *_embeddings(files))
    vae = export.learned.settings.vae  # part of the model that a patch belongs to
    base = "--model=BASE" + (f" --vae={shlex.quote(vae)}" if vae else "")
    return f"python -m cns_jax.patch apply {base} --out=DIR {shlex.join(map(str, files))}"


def _places(export: Exporter, file: str, comfyui: str, a1111: str) -> str:
    words = list(export.words.values())
    return _PLACES.format(file=file, comfyui=comfyui, a1111=a1111, words=", ".join(words), first=words[0])


def _python(export: Exporter, *lines: str) -> str:
    first = export.concepts[0]
    sample = export.learned.settings.sample  # the pipeline's own would draw other pictures than the run's
    of_run = {"steps": sample.steps, "guidance": sample.guidance_scale}
    draw = _DRAW.format(prompt=sample_prompts(first)[0], picture=f"{first.name}.png", **of_run)
    head = ("import torch", "from diffusers import StableDiffusionPipeline", "")
    return PYTHON + "\n".join((*head, *lines, draw))


def _base(export: Exporter) -> str:
    """The line that opens the base model; in float32, which everything runs."""
    address = export.learned.settings.address
    model = str(miniature_folder()) if address.model == MINIATURE else address.model
    single = Path(model).is_file()
    variant = f"variant={address.variant!r}, " if address.variant else ""
    model = str(Path(model).absolute()) if Path(model).exists() else model
    call = "from_single_file" if single else "from_pretrained"
    return f"pipe = StableDiffusionPipeline.{call}({model!r}, {variant}{_dtype('float32')})"


def _dtype(name: str) -> str:
    # every diffusers takes this name; releases from 2025 on know a shorter one, which older ones pass over
    return f"torch_dtype=torch.{name}"


def _embeddings(files: Sequence[Path]) -> list[str]:
    """Lines that load embeddings, a token each."""
    return [f"pipe.load_textual_inversion({str(f.parent.absolute())!r}, weight_name={f.name!r})" for f in files]
