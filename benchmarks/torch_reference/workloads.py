"""The workloads in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.speed.suites import (
    CALIBRATION,
    CAPTIONS,
    GUIDANCE,
    NAMES,
    PRIORS,
    ROWS,
    TOKENS,
    VIEWS,
    Suite,
    Workload,
    Workloads,
)
from benchmarks.torch_reference.data import Views
from benchmarks.torch_reference.lesson import Lesson, Rates
from benchmarks.torch_reference.networks import cumulative_alphas, kernels, load_networks, load_vae
from benchmarks.torch_reference.sampler import sample_latents
from benchmarks.torch_reference.selection import concept_neurons, feature_norms
from cns_jax.core.heap import keep_heap


class Theirs:
    """A model folder opened by diffusers and transformers; inputs are random, as in benchmarks.ours."""

    def __init__(self, suite: Suite, folder: Path) -> None:
        self.suite, self.folder = suite, folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.on_gpu = self.device.type == "cuda"
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True  # as XLA, which tries convolutions when it compiles
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.on_gpu)
        config = CLIPTextConfig.from_pretrained(folder, subfolder="text_encoder")
        self.length, self.width, self.vocabulary = config.max_position_embeddings, config.hidden_size, config.vocab_size

    @cached_property
    def _networks(self) -> tuple[UNet2DConditionModel, CLIPTextModel]:
        return load_networks(self.folder, torch.zeros(ROWS, self.width), self.device)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self._networks[0]

    @property
    def text(self) -> CLIPTextModel:
        return self._networks[1]

    @cached_property
    def vae(self) -> AutoencoderKL:
        return load_vae(self.folder, self.device)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of latents, NCHW without the batch."""
        side = self.suite.pixels // 2 ** (len(self.vae.config.block_out_channels) - 1)
        return self.unet.config.in_channels, side, side

    def _compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(function) if self.on_gpu else function

    def _waiting(self, function: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            function()
            if self.on_gpu:
                torch.cuda.synchronize()

        return run

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device)

    def _ids(self, count: int) -> Tensor:
        ids = torch.randint(self.vocabulary, (count, self.length), device=self.device)
        ids[:, 4] = self.vocabulary
        return ids

    @cached_property
    def prompts(self) -> tuple[Tensor, Tensor]:
        """Token ids of captions and calibration prompts."""
        captions, calibration = (self._ids(n).clamp(max=self.vocabulary - 1) for n in (CAPTIONS, CALIBRATION))
        return captions[:, :TOKENS], calibration[:, :TOKENS]

    @torch.no_grad()
    def _masks(self) -> dict[str, Tensor]:
        with self.autocast:
            hidden = [self.text(ids).last_hidden_state for ids in self.prompts]
        norms = [feature_norms(h, torch.ones(h.shape[:2], device=self.device)) for h in hidden]
        return concept_neurons(kernels(self.unet), *norms, ratio=0.3)

    def matmul(self) -> Workload:
        """The ceiling: a large product in the compute dtype."""
        n, times = (8192, 50) if self.on_gpu else (2048, 1)
        x = self._normal(n, n).to(torch.bfloat16 if self.on_gpu else torch.float32)

        def run() -> None:
            for _ in range(times):
                x @ x

        return Workload(self._waiting(run), flops=2.0 * n**3, per=times)

    def select(self) -> Workload:
        """A concept's neurons from the token ids of captions and calibration prompts (eq. 3 to 6)."""
        return Workload(self._waiting(self._masks))

    def step(self) -> Workload:
        """Training steps, batches drawn on the device."""
        suite, masks = self.suite, self._masks()
        used = {name: torch.zeros_like(mask) for name, mask in masks.items()}
        rates = Rates(3e-5, 5e-4, 1.0, 0.1)
        lesson = Lesson(self.unet, self.text, cumulative_alphas(self.folder, self.device), 0, masks, used, rates)
        c, h, w = self.shape
        views = Views(
            self._normal(VIEWS, 2 * c, h, w), self._ids(1)[0], self._normal(PRIORS, c, h, w), self._ids(1)[0],
            self.vae.config.scaling_factor, suite.batch, suite.prior_batch, 1.0,
        )  # fmt: skip

        def run() -> None:
            for _ in range(suite.steps):
                lesson.step(views.draw())

        return Workload(self._waiting(run), suite.batch + suite.prior_batch, per=suite.steps)

    @cached_property
    def _predict(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def predict(x: Tensor, t: Tensor, text: Tensor) -> Tensor:
            with self.autocast:
                return self.unet(x, t, text).sample

        return self._compiled(predict)

    def _latents(self) -> Callable[[], Tensor]:
        suite, ids, negative = self.suite, self._ids(self.suite.pictures), self._ids(1)
        scheduler = DPMSolverMultistepScheduler.from_pretrained(self.folder, subfolder="scheduler")
        encode = self._compiled(lambda x: self.text(x).last_hidden_state)

        @torch.no_grad()
        def latents() -> Tensor:
            noise = self._normal(suite.pictures, *self.shape)
            with self.autocast:
                text, without = (encode(x) for x in (ids, negative))
            return sample_latents(self._predict, scheduler, text, without, noise, suite.sample_steps, GUIDANCE)

        return latents

    def sample(self) -> Workload:
        """Latents from prompts, with guidance."""
        return Workload(self._waiting(self._latents()), self.suite.pictures)

    def draw(self) -> Workload:
        """Pictures from prompts: latents and their decoding."""
        latents, scale = self._latents(), self.vae.config.scaling_factor
        decode = self._compiled(lambda x: self.vae.decode(x).sample)

        @torch.no_grad()
        def run() -> Tensor:
            with self.autocast:
                images = decode(latents() / scale)
            return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

        return Workload(self._waiting(run), self.suite.pictures)

    def encode(self) -> Workload:
        """Pictures to the VAE's moments."""
        images = self._normal(self.suite.encoded, 3, self.suite.pixels, self.suite.pixels)
        encode = self._compiled(lambda x: self.vae.encode(x).latent_dist.parameters)

        @torch.no_grad()
        def run() -> Tensor:
            with self.autocast:
                return encode(images)

        return Workload(self._waiting(run), self.suite.encoded)

    def export(self) -> Workload:
        """The three networks to files, float16, from the host's memory as ours."""
        networks = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text}
        states = {
            part: {name: p.cpu().contiguous() for name, p in network.state_dict().items()}
            for part, network in networks.items()
        }

        def run() -> None:
            with TemporaryDirectory() as folder:
                for part, state in states.items():
                    half = {name: p.half() for name, p in state.items()}
                    save_file(half, Path(folder) / f"{part}.safetensors")

        return Workload(run, written=sum(2 * p.numel() for state in states.values() for p in state.values()))


def workloads(suite: Suite, folder: Path) -> Workloads:
    """All of them, on a GPU if there is one."""
    keep_heap()  # as cns_jax does: PyTorch's temporaries are mapped anew like XLA's
    theirs = Theirs(suite, folder)
    return {name: getattr(theirs, name) for name in NAMES}
