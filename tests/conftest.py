"""Settings of every test: four fake devices, no silent rank promotion, and a tiny random Stable Diffusion."""

from __future__ import annotations

import os

# read when jax makes its first array, here and in the processes that tests start
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import sys
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: for tiny_runs.py and random_weights.py

CAPTIONS = [
    f"a {medium} of a {color} {noun} {place}"
    for medium in ("photo", "painting", "sketch")
    for color in ("red", "blue", "white")
    for noun in ("cat", "dog", "mug", "bird", "boat")
    for place in ("on the beach", "in the forest", "in the snow")
]


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs in pytest's cache folder: processes that tests start and later runs reuse them."""
    cache = getattr(config, "cache", None)  # absent with -p no:cacheprovider
    if cache is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir("jax"))
        jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let LLVM optimize little, here and in processes that a test starts: to compile was most of the suite's time, and
    tiny models run in no time either way. Not for tests marked `computes` or `slow`, which run larger ones."""
    hasty = not any(item.get_closest_marker(name) for name in ("computes", "slow"))
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(hasty)
    jax.config.update("jax_disable_most_optimizations", hasty)
    return (yield)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs and CLIP's vocabulary; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CNS_JAX_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"{folder / 'data'} is absent (set CNS_JAX_SHARED to the folder that holds data/)")
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory):
    """A random Stable Diffusion of one level with a tokenizer trained on CAPTIONS."""
    from random_weights import random_params

    from cns_jax.diffusion.schedule import Schedule
    from cns_jax.nn.clip import CLIPTextConfig
    from cns_jax.nn.model import Model
    from cns_jax.nn.unet import UNetConfig
    from cns_jax.nn.vae import VAEConfig
    from cns_jax.text.train_bpe import train_tokenizer
    from cns_jax.weights.pipeline import Pipeline

    folder = tmp_path_factory.mktemp("tokenizer")
    words = ("cat", "dog", "mug", "photo", "beach", "toy")
    tokenizer = train_tokenizer(CAPTIONS, folder, vocab_size=700, max_length=20, words=words)
    text = CLIPTextConfig(
        vocab_size=tokenizer.size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=20,
        projection_dim=16,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    unet = UNetConfig(
        in_channels=4,
        out_channels=4,
        sample_size=4,
        block_out_channels=(16,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        norm_num_groups=8,
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    vae = VAEConfig(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
    )
    model = Model(unet, vae, text)
    schedule = Schedule(steps_offset=1, set_alpha_to_one=False)
    return Pipeline(model, random_params(model), schedule, folder)


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline as a diffusers folder."""
    from cns_jax.weights.folder import write_pipeline

    return write_pipeline(tmp_path_factory.mktemp("model") / "tiny", tiny_pipeline)


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of functions, as XLA compiles them from here on."""
    names: list[str] = []

    def listen(event: str, _: float, **of_event: object) -> None:
        if event.endswith("backend_compile_duration"):
            names.append(str(of_event.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def trained(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run of this process: its settings' values, its folder, and how often the step was compiled."""
    from tiny_runs import values

    from cns_jax.core.settings import build
    from cns_jax.engine.settings import RunSettings
    from cns_jax.engine.teach.sequence import run
    from cns_jax.engine.teach.step import train_steps
    from cns_jax.text.vocabulary import TruncatedPromptWarning

    folder = tmp_path_factory.mktemp("runs") / "whole"
    config = values(tiny_folder, folder)
    before = train_steps.jitted._cache_size()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncatedPromptWarning)  # the tiny text encoder has 20 positions
        run(build(RunSettings, config))
    return {"values": config, "folder": folder, "compiled": train_steps.jitted._cache_size() - before}
