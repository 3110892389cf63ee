"""Texts that both databases can store."""

from hypothesis import given
from hypothesis import strategies as st

from storage.database.texts import make_storable


@given(st.lists(st.none() | st.text(st.characters()), max_size=10))
def test_any_text_becomes_storable(texts: list[str | None]) -> None:
    storable = make_storable(texts)
    assert [text is None for text in storable] == [text is None for text in texts]
    for text in storable:
        assert text is None or ("\x00" not in text and text.encode().decode() == text)


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))))
def test_storable_texts_are_unchanged(texts: list[str | None]) -> None:
    assert list(make_storable(texts)) == texts


def test_surrogate_pair_is_joined_and_lone_surrogate_is_replaced() -> None:
    assert make_storable(["\ud83d\ude00", "a\ud83db"]) == ["😀", "a\ufffdb"]
