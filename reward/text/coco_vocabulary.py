"""The 80 object classes of COCO (Lin et al. 2014), their plurals, and what else they are called in everyday English.

``VOCABULARY`` is what a recipe calls ``coco``. CHAIR's own list of synonyms is another and is not shipped
(``training.evaluation.words``).
"""

from __future__ import annotations

from reward.text.object_vocabulary import Vocabulary


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


NAMES = _split(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
ANIMALS = _split("bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, animal, cub")
_PLURALS = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "baby": "babies", "lady": "ladies",
    "mouse": "mice", "shelf": "shelves", "knife": "knives", "pony": "ponies", "puppy": "puppies", "sheep": "sheep",
    "skis": "skis", "scissors": "scissors", "broccoli": "broccoli",
}  # fmt: skip
#: Other names of the classes. What is only some of a class (a ``jet``, a ``kitten``) is one of it; a word that as often
#: means something else (``plant``, ``table``, ``ball``, ``plate``) is not here.
_ALSO = {
    "person": "man, woman, child, boy, girl, kid, baby, lady, guy, toddler, skier, snowboarder, surfer, skateboarder, "
    "pedestrian, cyclist, motorcyclist",
    "bicycle": "bike",
    "motorcycle": "motorbike, motor bike, motor cycle, motor scooter",
    "airplane": "plane, aeroplane, air plane, jet, airliner, jetliner",
    "car": "automobile, taxi, minivan",
    "boat": "sailboat, rowboat, canoe, kayak, ferry boat",
    "traffic light": "stoplight, stop light, traffic signal",
    "fire hydrant": "hydrant",
    "bird": "seagull, duck, goose, parrot, pigeon",
    "cat": "kitten",
    "dog": "puppy",
    "horse": "pony, foal",
    "sheep": "lamb",
    "cow": "bull, ox",
    "backpack": "rucksack, knapsack",
    "umbrella": "parasol",
    "handbag": "purse",
    "tie": "necktie, bow tie",
    "suitcase": "suit case",
    "baseball glove": "baseball mitt",
    "tennis racket": "tennis racquet",
    "wine glass": "wineglass",
    "sandwich": "hamburger, burger",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "couch": "sofa",
    "potted plant": "houseplant, house plant",
    "dining table": "dinner table, kitchen table",
    "toilet": "toilet seat",
    "tv": "television, television set, tv set",
    "laptop": "laptop computer, notebook computer",
    "mouse": "computer mouse",
    "remote": "remote control",
    "cell phone": "cellphone, mobile phone, smartphone, smart phone, cellular phone",
    "refrigerator": "fridge",
    "teddy bear": "teddy",
    "hair drier": "hair dryer, hairdryer, blow dryer",
}
#: Plurals that follow no rule of ``plural`` and are of no name above.
_FORMS = {"persons": "person", "geese": "bird", "oxen": "cow", "mouses": "mouse", "snow board": "snowboard",
          "skate board": "skateboard", "surf board": "surfboard", "televisions": "tv"}  # fmt: skip
#: What has the name of a class in it and is none of its objects.
_NOTHING = _split(
    "train track, train station, bus stop, bus station, boat dock, horse trailer, dog house, cat food, dog food, "
    "bird house, bird feeder, mouse pad, cake stand, chair lift, car park, car seat, jet ski, flower bed, river "
    "bed, cup holder, cup cake, book shelf, apple tree, orange tree, banana tree, orange juice, apple juice, "
    "bottle cap, zebra crossing, zebra print, toilet paper, toilet roll, toilet brush, bear hug, bed of, beds of, "
    "bed sheet, bed room, bed frame, bed spread, train ticket, train platform, train yard, train set, bus lane, "
    "bus route, boat house, boat ramp, boat yard, dog park, dog leash, dog collar, dog bowl, dog sled, cat walk, "
    "cat tail, cat fish, bird bath, bird cage, bird seed, bird nest, horse shoe, horse race, horse stable, cow "
    "bell, cow hide, sheep skin, elephant ear, lady bug, bull dozer, lamb chop, duck tape, apple pie, apple "
    "sauce, carrot cake, banana bread, banana split, pizza box, pizza cutter, pizza oven, pizza shop, pizza "
    "parlor, sandwich board, sandwich shop, donut shop, cake shop, cake pan, tie dye, tie rack, kite string, "
    "knife block, fork lift, oven mitt, oven glove, sink hole, mouse trap, bottle opener, book store, book case, "
    "book mark, book end, chair person, bench press, tv stand, tv show, car wash, car port, truck stop, jet lag, "
    "baby stroller, baby carriage, baby bottle, baby powder, child seat, man hole, man made, umbrella stand, "
    "surfboard rack, skateboard park, laptop bag, clock work"
)
#: Adjectives, too, and as those more frequent.
_ATTRIBUTIVE = frozenset({"orange", "remote"})


def plural(name: str) -> str:
    """
    >>> [plural(name) for name in ("knife", "hot dog", "bus", "baby sheep")]
    ['knives', 'hot dogs', 'buses', 'baby sheep']
    """
    *before, word = name.split(" ")
    regular = word + ("es" if word.endswith(("s", "ch", "sh", "x")) else "s")
    return " ".join([*before, _PLURALS.get(word, regular)])


def _synonyms() -> dict[str, str]:
    others = {form: name for name, forms in _ALSO.items() for form in _split(forms)}
    young = {f"{age} {name}": name for name in ANIMALS if name in NAMES for age in ("baby", "adult")}
    vehicles = {"passenger train": "train", "passenger jet": "airplane", "fire truck": "truck"}
    every = {**{name: name for name in NAMES}, **others, **young, **vehicles}
    synonyms = {form: name for word, name in every.items() for form in (word, plural(word))} | _FORMS
    # The colour is said of other things far more often than the fruit is seen.
    coloured = {f"orange {form}": name for form, name in synonyms.items() if name != "orange"}
    return {**synonyms, **coloured}


VOCABULARY = Vocabulary(
    "coco", "2", _synonyms(), frozenset(form for term in _NOTHING for form in (term, plural(term))), _ATTRIBUTIVE
)
