"""The shortcut finds exactly the pairs that comparing everything finds."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from sightline.demo.near_duplicates import near_duplicate_groups, similar_pairs, similarity

texts = st.lists(st.frozensets(st.sampled_from("abcdefgh"), min_size=1), max_size=12)


@given(texts, st.sampled_from([0.3, 0.5, 0.7, 0.75, 1.0]))
def test_pairs_are_those_of_comparing_every_pair(words, threshold):
    """The prefix filter loses none and adds none."""
    expected = {(j, i) for i, j in combinations(range(len(words)), 2) if similarity(words[i], words[j]) >= threshold}
    assert set(similar_pairs(words, threshold)) == expected


@given(texts)
def test_groups_hold_every_text_once_and_similar_texts_together(words):
    """A partition in which no similar pair is parted."""
    groups = near_duplicate_groups(words, 0.7)
    assert sorted(i for group in groups for i in group) == list(range(len(words)))
    place = {i: number for number, group in enumerate(groups) for i in group}
    assert all(place[i] == place[j] for i, j in similar_pairs(words, 0.7))


def test_similarity_is_jaccards():
    """Intersection over union."""
    assert similarity(frozenset("abc"), frozenset("bcd")) == 0.5
    assert similarity(frozenset(), frozenset()) == 1.0


def test_dissimilar_texts_stay_apart():
    """Only the equal ones share a group."""
    assert near_duplicate_groups(["abc", "def", "cab"], 0.7) == [[0, 2], [1]]
