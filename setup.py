"""Packaging of cns_jax; the tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = (ROOT / "cns_jax" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

setup(
    name="cns-jax",
    version=VERSION,
    description="Concept Neuron Selection: one Stable Diffusion model that keeps learning new concepts, in JAX",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["cns_jax", "cns_jax.*"]), "cns_jax.configs", "cns_jax.configs.methods"],
    package_dir={"cns_jax.configs": "configs", "cns_jax.configs.methods": "configs/methods"},  # see cns_jax/shipped.py
    package_data={
        "cns_jax.miniature": ["model/**/*"],
        "cns_jax.engine.pages": ["templates/*"],
        "cns_jax.configs": ["prompts/*.txt"],
        "cns_jax.protect": ["captions.txt"],
    },
    entry_points={"console_scripts": ["cns-jax = cns_jax.__main__:main"]},
    install_requires=[
        "absl-py>=2.1",
        "anyascii>=0.3.3",  # tokens and file names from names in other scripts
        "array_record>=0.8",  # tensorflow-datasets reads and writes it without TensorFlow
        "etils>=1.9",
        "filelock>=3.13",  # one writer a folder; jax bounds its compilation cache with it, too
        "flax>=0.12",
        "huggingface_hub>=1.0",
        "importlib_resources>=6.0",  # etils needs it and does not say so
        "jax>=0.10,<0.12",  # the versions that were run
        "jinja2>=3.1",
        "matplotlib>=3.10",
        "ml_collections>=1.1",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12",
        "pillow>=11.3",  # reads AVIF
        "pyyaml>=6.0",  # the configuration beside a single checkpoint file
        "safetensors>=0.8",
        "scipy>=1.13",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.9",
        "tokenizers>=0.22",
        "tqdm>=4.66",
        "transformers>=5.0,<6",  # for CLIP's tokenizer; installs without torch
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10,<0.12"],
        "cuda13": ["jax[cuda13]>=0.10,<0.12"],
        "tpu": ["jax[tpu]>=0.10,<0.12"],
        "caption": ["torch>=2.6", "transformers>=5.0,<6"],  # BLIP, for python -m cns_jax.caption
        "photos": ["pi-heif>=1.0", "pillow-jxl-plugin>=1.3"],  # HEIC and JPEG XL
        "dino": ["torch>=2.6", "transformers>=5.0,<6"],  # DINO-I
        "test": [
            "diffusers==0.42.*",
            "hypothesis>=6.150",
            "mypy>=1.18",
            "peft>=0.18",  # diffusers loads LoRA files with it
            "pi-heif>=1.0",  # the extra photos
            "pillow-jxl-plugin>=1.3",
            "pytest>=8.4",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "selenium>=4.25",  # the pages in a browser; its tests skip where Chromium is absent
            "torch==2.13.0",
        ],
    },
)
