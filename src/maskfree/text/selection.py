"""Choosing an entity set from the nouns of a corpus: frequent ones, which stand where nouns stand and can be seen."""

from __future__ import annotations

from collections.abc import Mapping

from maskfree.text.entities import ABSTRACT, EntitySet, word_tag

MIN_NOUN_SHARE = 0.45  # of the pairs with a word, those where it stands as a noun
MOST_ENTITIES = 65_535  # an index numbers them with 16 bits
# What captions of photos say often and no region of a photo shows.
_UNSEEN = frozenset(
    """
afternoon age autumn century christmas date decade evening fall hour minute moment month morning night noon season second
spring summer sunday time today tomorrow week weekend winter year yesterday april january october december
arrangement assortment bunch collection dozen group half hundred lot majority number pair percent piece row series set
size ten thousand total type variety
angle corner destination direction edge interior location middle outside place position spot surface top world
appearance artist backdrop backdrops clip close closeup composition concept copy copyright cover design detail display
draw edit element film footage format graphic graphics icon illustration image logo media model movie pattern poster
premiere render resolution set show sketch stock style symbol template text texture theme vector video wallpaper
account action activity attention attitude background beauty birth business career celebration center ceremony chance
change choice class climate color colour comfort competition condition conference contrast control cost course culture
dance danger death development difference education effect effort emotion energy event example exercise expression fact
fashion favorite fight fishing form freedom fun future game goal habit happiness health height help history holiday hope
idea industry information inspiration job journey kick knowledge leap length level life lifestyle look love luck luxury
match meeting memory method mind mood move movement music name nature need news noise pace party performance picnic plan
play pose power practice presence price problem process project purpose quality race reason reflection relationship
research rest result return risk role round rule sale service shape shopping silhouette skill smile sound speed
sport standing step story stunt success support surprise system talk tour tourism tradition training travel trick trip
use value vacation view visit walk war way wedding weather weight work workout
asian american british chinese english european french german indian italian japanese
beige black blue brown gold golden gray green grey pink purple red silver tan teal turquoise violet white yellow
athletics badminton baseball basketball bmx cricket football golf gymnastics hockey lacrosse motocross parkour rugby
soccer softball surfing tennis volleyball wakeboarding wrestling
bathing dancing drinking parking reading running skateboarding skiing sledding snowboarding swimming
celebrity character politician
content display focus freestyle line plastic metal material mid other plain plaid same single someone various
""".split()
)


def select(pairs: Mapping[str, int], as_nouns: Mapping[str, int], most: int, least: int) -> EntitySet:
    """Return the MOST nouns that the most PAIRS have, each its own entity: those of at least LEAST pairs.

    AS_NOUNS are the pairs where the word stands as a noun: where those are well below half, it is a verb. Left out are
    words that name nothing which has a place of its own in a picture: amounts, times, colours, actions, the picture.

    Raises:
        ValueError: MOST or LEAST is out of range, or no noun is left.
    """
    check(most, least)
    chosen = [noun for noun, number in pairs.items() if number >= least and _is_thing(noun)]
    chosen = [noun for noun in chosen if as_nouns.get(noun, 0) >= MIN_NOUN_SHARE * pairs[noun]]
    chosen.sort(key=lambda noun: (-pairs[noun], noun))
    if not chosen:
        raise ValueError(f"no noun that can be seen occurs in {least} pairs or more: there is no entity set to choose")
    return EntitySet(tuple((noun, noun) for noun in chosen[:most]))


def check(most: int, least: int) -> None:
    """Make sure that the settings of `select` make sense.

    Raises:
        ValueError: MOST or LEAST is out of range.
    """
    if not 1 <= most <= MOST_ENTITIES:
        raise ValueError(f"{most} entities at most: the number lies in [1, {MOST_ENTITIES}]")
    if least < 1:
        raise ValueError(f"{least} pairs at least: the number is 1 or more")


def _is_thing(noun: str) -> bool:
    return len(noun) > 1 and noun not in ABSTRACT and noun not in _UNSEEN
