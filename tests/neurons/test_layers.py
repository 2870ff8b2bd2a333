from __future__ import annotations

import pytest

from cns_jax.neurons.layers import layer_of, network_order


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.kernel", "down 2.1"),
        ("mid_block.attentions.0.transformer_blocks.0.attn2.to_v.kernel", "mid"),
        ("up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v.kernel", "up 3.2"),
        ("up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v.kernel", "up 0.0"),
        ("another.attn2", "another.attn2"),
    ],
)
def test_layer_names(name: str, layer: str) -> None:
    assert layer_of(name) == layer


def test_layers_come_in_the_networks_order() -> None:
    names = [f"{p}.attentions.{a}.transformer_blocks.{t}.attn2"
             for p in ("down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.10")
             for a in (0, 1) for t in (0, 1)]  # fmt: skip
    assert sorted(set(names), key=network_order) == names
