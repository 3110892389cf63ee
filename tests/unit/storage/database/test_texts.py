"""Texts on their way into a database."""

from hypothesis import given
from hypothesis import strategies as st

from storage.database.texts import make_storable


@given(st.lists(st.none() | st.text(st.characters()), max_size=10))
def test_any_text_becomes_one_that_both_databases_hold(texts: list[str | None]) -> None:
    kept = make_storable(texts)
    assert [text is None for text in kept] == [text is None for text in texts]
    for text in kept:
        assert text is None or ("\x00" not in text and text.encode().decode() == text)


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))))
def test_texts_that_can_be_held_stay_as_they_are(texts: list[str | None]) -> None:
    assert list(make_storable(texts)) == texts


def test_a_surrogate_pair_is_joined_and_a_lone_one_replaced() -> None:
    assert make_storable(["\ud83d\ude00", "a\ud83db"]) == ["😀", "a\ufffdb"]
