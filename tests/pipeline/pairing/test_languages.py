"""What prompts say of the language of their answers, by columns as one by one."""

from __future__ import annotations

import pyarrow as pa
from good_texts import BAD, GOOD
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pairing import languages
from reward.text import language

_FREQUENT = sorted(word for name in language.LANGUAGES for word in language.frequent(name))
_OTHERS = "Sun dog4 4dog _the_ a1b the, OCR ocr1 Signs sign_ in Translated: text's 'TEXT' 12 ab\x00c ſign 太陽 été"
WORD = st.sampled_from([*_FREQUENT, *(word.title() for word in _FREQUENT), *_OTHERS.split()])
PROMPT = (
    st.lists(WORD, max_size=12).map(" ".join)
    | st.text(st.characters(max_codepoint=127), max_size=40)
    | st.sampled_from([text for pair in [*GOOD, *((prompt, text) for _, prompt, text in BAD)] for text in pair])
)


@given(st.lists(PROMPT, max_size=8))
def test_columns_say_what_is_said_one_by_one(prompts: list[str]) -> None:
    prompts += prompts[:1]
    assert languages.asked(pa.array(prompts, pa.string())) == [language.asked(prompt) for prompt in prompts]


def test_ascii_prompts_in_every_language_are_told_apart_by_columns() -> None:
    told = [" ".join(word for word in sorted(language.frequent(name)) if word.isascii()) for name in language.LANGUAGES]
    expected = [language.asked(prompt) for prompt in told]
    assert len({one.language for one in expected} - {None}) == len(language.LANGUAGES)
    assert languages._in_ascii(pa.array(told)) == expected


@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=60) | st.lists(WORD, max_size=30).map(" ".join)))
def test_frequent_words_are_counted_as_in_a_single_text(texts: list[str]) -> None:
    plain = [text for text in texts if text.isascii()]
    counts, hits = languages.frequent_words(pa.array(plain, pa.string()))
    for i, text in enumerate(plain):
        known, number = language._hits(text)
        assert counts[i] == number and hits[:, i].tolist() == [known[name] for name in language.LANGUAGES]
