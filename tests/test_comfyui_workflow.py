"""The workflows of docs/comfyui: one graph in both of ComfyUI's forms, of its core nodes and their inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "comfyui"
# inputs that are links (with their types), inputs that are widgets, outputs; as nodes.py of ComfyUI has them
NODES: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "CheckpointLoaderSimple": ({}, ("ckpt_name",), ("MODEL", "CLIP", "VAE")),
    "LoraLoader": (
        {"model": "MODEL", "clip": "CLIP"},
        ("lora_name", "strength_model", "strength_clip"),
        ("MODEL", "CLIP"),
    ),
    "CLIPTextEncode": ({"clip": "CLIP"}, ("text",), ("CONDITIONING",)),
    "EmptyLatentImage": ({}, ("width", "height", "batch_size"), ("LATENT",)),
    "KSampler": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "latent_image": "LATENT"},
        ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
        ("LATENT",),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, (), ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE"}, ("filename_prefix",), ()),
}


def api() -> dict[str, Any]:
    return json.loads((FOLDER / "cat_lora_api.json").read_text())


def test_the_nodes_are_comfyuis() -> None:
    graph = api()
    assert [node["class_type"] for node in graph.values()].count("SaveImage") == 1
    for node in graph.values():
        linked, widgets, _ = NODES[node["class_type"]]
        assert node["inputs"].keys() == {*linked, *widgets}
        for name, type_ in linked.items():
            source, slot = node["inputs"][name]
            assert NODES[graph[source]["class_type"]][2][slot] == type_
    assert any("embedding:my_cat cat" in str(node["inputs"].get("text")) for node in graph.values())


def test_both_forms_are_one_graph() -> None:
    drawn = json.loads((FOLDER / "cat_lora.json").read_text())
    links = {link[0]: link for link in drawn["links"]}
    found = {}
    for node in drawn["nodes"]:
        widgets = list(node["widgets_values"])
        if node["type"] == "KSampler":
            assert widgets.pop(1) == "fixed"  # what becomes of the seed after a picture
        inputs = dict(zip(NODES[node["type"]][1], widgets, strict=True))
        for place, entry in enumerate(node["inputs"]):
            _, source, slot, target, where, type_ = links[entry["link"]]
            assert (target, where, type_) == (node["id"], place, entry["type"])
            inputs[entry["name"]] = [str(source), slot]
        found[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        for slot, out in enumerate(node["outputs"]):
            assert out["links"] == [n for n, link in links.items() if link[1:3] == [node["id"], slot]]
    assert found == api()
