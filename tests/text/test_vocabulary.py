import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfree.text.vocabulary import Vocabulary, _texts


def test_both_ways_of_listing_mean_the_same():
    expected = (("dog",), ("grass",), ("tv monitor",))
    assert Vocabulary.parse(["dog", "grass", "tv monitor"]).classes == expected
    assert Vocabulary.parse([" dog,grass ,tv   monitor"]).classes == expected
    assert Vocabulary.parse(["dog,grass", "tv monitor"]).classes == expected


def test_synonyms_belong_to_the_class_that_the_first_names():
    vocabulary = Vocabulary.parse(["dog", "sofa/couch / settee", "Sky"])
    assert vocabulary.names == ("dog", "sofa", "Sky")
    assert vocabulary.flatten() == (("dog", "sofa", "couch", "settee", "Sky"), (0, 1, 1, 1, 2))
    assert [vocabulary.find(word) for word in ("couch", "SKY", " dog ")] == [1, 2, 0]
    with pytest.raises(ValueError, match="cat"):
        vocabulary.find("cat")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], "no words"),
        ([""], "empty word"),
        (["dog", " "], "empty word"),
        (["dog,,cat"], "empty word"),
        (["dog,"], "empty word"),
        (["sofa/"], "empty word"),
        (["dog", "dog"], "repeated"),
        (["dog", "Dog"], "repeated"),
        (["sofa/couch", "couch"], "repeated"),
        (["sofa/sofa"], "repeated"),
        (["tv  monitor", "tv monitor"], "repeated"),
        (["dog\ncat"], "newline"),
        (["dog\n"], "newline"),
        (["\n"], "newline"),
        (["dog\rcat"], "newline"),
        (["dog\u2028cat"], "newline"),
        (["do\x00g"], "control character"),
        (["x" * 101], "100 is the most"),
        ([str(i) for i in range(1001)], "1000 is the most"),
    ],
)
def test_bad_words_are_refused_in_one_line(words, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        Vocabulary.parse(words)
    assert len(str(caught.value).splitlines()) == 1


def test_longest_word_and_list_are_taken():
    assert Vocabulary.parse(["x" * 100]).names == ("x" * 100,)
    assert len(Vocabulary.parse([str(i) for i in range(1000)]).classes) == 1000


@given(st.lists(st.text(max_size=8), max_size=4))
def test_any_input_gives_classes_or_a_one_line_reason(words):
    try:
        phrases, owners = Vocabulary.parse(words).flatten()
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert all(phrases) and list(owners) == sorted(owners)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (None, "the words are None"),
        (7, "the words are a int"),
        ({"cat": 1}, "the words are a dict"),
        ({"cat"}, "the words are a set"),
        (b"cat", "the words are a bytes"),
        ([1], "the word 1 is no text"),
        ([None], "the word None is no text"),
        ([["cat", "kitten"]], r"the word \['cat', 'kitten'\] is no text: .*'cat/kitten'"),
    ],
)
def test_what_is_no_list_of_texts(words, rule):
    with pytest.raises(ValueError, match=rule):
        _texts(words)


def test_words_of_a_generator_are_words():
    assert _texts(word for word in ("dog", "cat")) == ["dog", "cat"]
