"""Select an entity set from the frequent nouns of a corpus."""

from __future__ import annotations

from collections.abc import Mapping

from maskfree.text.entities import EntitySet
from maskfree.text.nouns import ABSTRACT

# Least share of a word's pairs in which it is a noun; a word below it is mostly a verb.
MIN_NOUN_SHARE = 0.45
MAX_ENTITIES = 65_535  # entity ids are stored in 16 bits
# Frequent caption nouns that no image region shows: times, amounts, colors, sports, media, ideas.
_UNSEEN = """
account action activity afternoon age american angle appearance april arrangement artist asian
assortment athletics attention attitude autumn backdrop background badminton baseball basketball
bathing beauty beige birth black blue bmx british brown bunch business career celebration celebrity
center century ceremony chance change character chinese choice christmas class climate clip close
closeup collection color colour comfort competition composition concept condition conference content
contrast control copy copyright corner cost course cover cricket culture dance dancing danger date
death decade december design destination detail development difference direction display dozen
drinking edge edit education effect effort element emotion energy english european evening event
example exercise expression fact fall fashion favorite fight film fishing focus footage football
form format freedom freestyle french fun future game german goal gold golden golf graphic graphics
gray green grey group gymnastics habit half happiness health height help history hockey holiday hope
hour hundred icon idea illustration image indian industry information inspiration interior italian
january japanese job journey kick knowledge lacrosse leap length level life lifestyle line location
logo look lot love luck luxury majority match material media meeting memory metal method middle mind
minute model moment month mood morning motocross move movement movie music name nature need news
night noise noon number october outside pace pair parking parkour party pattern percent performance
picnic piece pink place plan plastic play politician pose position poster power practice premiere
presence price problem process project purple purpose quality race reading reason red reflection
relationship render research resolution rest result return risk role round row rugby rule running
sale season second series service set shape shopping show silhouette silver size skateboarding
sketch skiing skill sledding smile snowboarding soccer softball someone sound speed sport spot
spring step stock story stunt style success summer sunday support surface surfing surprise swimming
symbol system talk tan teal template ten tennis text texture theme thousand time today tomorrow top
total tour tourism tradition training travel trick trip turquoise type use vacation value variety
vector video view violet visit volleyball wakeboarding walk wallpaper war way weather wedding week
weekend weight white winter work workout world wrestling year yellow yesterday
"""
_NO_THINGS = ABSTRACT.union(_UNSEEN.split())


def select(
    pairs: Mapping[str, int], as_nouns: Mapping[str, int], max_entities: int, min_pairs: int
) -> EntitySet:
    """Select the most frequent nouns of a corpus as an entity set.

    Words without a region in the image are left out: amounts, times, colors, actions, the image
    itself. So are words that are mostly verbs.

    Args:
        pairs: Number of image-text pairs that contain each noun.
        as_nouns: Number of pairs in which the word is used as a noun.
        max_entities: Largest number of nouns to select.
        min_pairs: Smallest number of pairs of a noun.

    Returns:
        The most frequent nouns, each its own entity.

    Raises:
        ValueError: A number is out of range, or no noun is left.
    """
    check(max_entities, min_pairs)
    chosen = []
    for noun, number in pairs.items():
        is_frequent_noun = as_nouns.get(noun, 0) >= MIN_NOUN_SHARE * number
        if number >= min_pairs and is_frequent_noun and _is_thing(noun):
            chosen.append(noun)

    # Most frequent first; ties in alphabetical order, to be reproducible.
    chosen.sort(key=lambda noun: (-pairs[noun], noun))
    if not chosen:
        raise ValueError(
            f"no noun that can be seen occurs in {min_pairs} pairs or more: "
            "there is no entity set to choose"
        )

    return EntitySet(tuple((noun, noun) for noun in chosen[:max_entities]))


def check(max_entities: int, min_pairs: int) -> None:
    """Check the settings of `select`.

    Args:
        max_entities: Largest number of nouns to select, from 1 to `MAX_ENTITIES`.
        min_pairs: Smallest number of pairs of a noun, 1 or more.

    Raises:
        ValueError: A number is out of range.
    """
    if not 1 <= max_entities <= MAX_ENTITIES:
        raise ValueError(f"{max_entities} entities at most: the number lies in [1, {MAX_ENTITIES}]")
    if min_pairs < 1:
        raise ValueError(f"{min_pairs} pairs at least: the number is 1 or more")


def _is_thing(noun: str) -> bool:
    """Whether a noun may name something with a region in an image."""
    return len(noun) > 1 and noun not in _NO_THINGS
