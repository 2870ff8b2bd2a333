"""InvokeAI's own loader on a LoRA file: the UNet that it patches, as a safetensors file. Or what its model manager
takes files for.

    python invokeai_reader.py LORA.safetensors BASE/unet OUT.safetensors
    python invokeai_reader.py FILES

Installing invokeai without its dependencies is enough for it, with torch, diffusers and these:

    pip install --no-deps invokeai pydantic pydantic-core pydantic-settings annotated-types typing-inspection \
        python-dotenv picklescan blake3 accelerate gguf einops compel semver psutil sentencepiece networkx fastapi \
        starlette fastapi-events opencv-python-headless spandrel onnx onnxruntime dynamicprompts imageio \
        python-multipart mistral-common bcrypt passlib python-jose Deprecated torchsde trampoline
"""

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import diffusers  # noqa: F401  before the empty torchvision
import torch
import transformers  # noqa: F401
from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: F401
from safetensors.torch import load_file, save_file


class Empty(types.ModuleType):
    """A module that has everything, and nothing in it: nothing of torchvision is used here."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


if importlib.util.find_spec("torchvision") is None:
    for below in ("", ".transforms", ".transforms.functional", ".ops", ".io"):
        module = Empty("torchvision" + below)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module

import invokeai.backend.model_manager.load  # noqa: E402,F401  first: the other order is a circular import
from invokeai.backend.model_manager.configs.factory import ModelConfigFactory  # noqa: E402
from invokeai.backend.model_manager.load.model_cache.torch_module_autocast.torch_module_autocast import (  # noqa: E402
    apply_custom_layers_to_model,
)
from invokeai.backend.patches.layer_patcher import LayerPatcher  # noqa: E402
from invokeai.backend.patches.lora_conversions.sd_lora_conversion_utils import (  # noqa: E402
    lora_model_from_sd_state_dict,
)

if not sys.argv[-2].endswith("unet"):
    for name in sys.argv[1:]:
        found = ModelConfigFactory.from_model_on_disk(Path(name)).config
        print(found.base.value, found.type.value)
    sys.exit()

lora, base, out = sys.argv[1:]
model = lora_model_from_sd_state_dict(load_file(lora))
unet = UNet2DConditionModel.from_pretrained(base, torch_dtype=torch.float32)
apply_custom_layers_to_model(unet)
patching = LayerPatcher.apply_smart_model_patches(
    model=unet, patches=[(model, 1.0)], prefix="lora_unet_", dtype=torch.float32, force_direct_patching=True
)
with patching:
    save_file({key: value.detach().clone() for key, value in unet.state_dict().items()}, out)
