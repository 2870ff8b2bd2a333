"""What a folder's name says."""

from __future__ import annotations

import pytest

from cns_jax.data.names import guess_class_word, token_of


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        ("colorful_sneaker", "sneaker"),
        ("dog2", "dog"),
        ("my-red mug", "mug"),
        ("Cat", "cat"),
        ("10_sks dog", "dog"),
        ("моя_кошка", "кошка"),
        ("猫", "猫"),
        ("123", "123"),
    ],
)
def test_class_word(name: str, noun: str) -> None:
    assert guess_class_word(name) == noun


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("my_cat", "<my_cat>"),
        ("My Cat!", "<my_cat_>"),
        ("dog-2", "<dog-2>"),
        ("a.b (c)", "<a_b_c_>"),
        ("___", "<___>"),
        ("01_tiger_cat", "<01_tiger_cat>"),  # sorted by number
        ("2024_dogs", "<2024_dogs>"),  # a year
        ("10_sks dog", "<sks_dog>"),  # kohya's repeats
        ("100_mug", "<mug>"),
        ("10_猫", "<mao>"),
        ("10_20", "<10_20>"),
        ("мой_пёс", "<moy_pes>"),
        ("моя_кошка", "<moya_koshka>"),
        ("猫", "<mao>"),
        ("café", "<cafe>"),
        ("🐱", "<cat>"),
        ("私の犬", "<sinoquan>"),
        ("‽‽", None),
        ("\ue000", None),
    ],
)
def test_token(name: str, token: str | None) -> None:
    assert token_of(name) == token
