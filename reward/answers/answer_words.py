"""Words that say how a short answer is to be taken, and other names for what is often asked about."""

from __future__ import annotations

from functools import lru_cache


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Words of questions that no other language has.
ENGLISH = words(
    "it it's they she you your "
    "what what's which who who's whom whose where when why how the this that these those there does did doing with "
    "many much colour kind tell give identify select choose count answer following shown picture"
)
YES, NO = words("yes true"), words("no false")
#: What takes back, weakens or adds to what is said, and what joins things rather than names one.
UNSURE = words(
    "not no never none nothing nobody without neither nor isn't aren't wasn't don't doesn't can't cannot won't maybe "
    "perhaps probably possibly might may could should would seems appears about around approximately roughly nearly "
    "almost over under least most more less fewer than or either if but except unless however only just and also both "
    "with of in on at to by for from as near next is are was were be been has have had that which who whose where "
    "there it its this these those they i you he she his her their we my your what how why unknown unclear unsure "
    "undetermined unanswerable unspecified na other another same different else several many some few lots something "
    "someone somebody anything anyone idk depends ambiguous impossible insufficient inconclusive indeterminate blurry "
    "unreadable illegible obscured undefined irrelevant inapplicable information above below see think guess tell say "
    "pass skip error null nil sorry"
)
#: Of what these name, any other answer may be one.
GENERIC = words(
    "animal pet mammal creature vehicle food meal fruit vegetable drink beverage thing object item person people human "
    "man woman male female adult player building structure house furniture color colour plant tree flower tool device "
    "machine appliance "
    "toy game sport clothes clothing outfit accessory room place outdoors outside indoors inside nature city material "
    "metal pattern shape brand logo sign text word letter number season weather daytime container dish utensil "
    "instrument"
)
#: Each line holds names that may stand for each other.
_ALIKE = """
grey gray silver
red crimson scarlet maroon burgundy
blue navy turquoise teal cyan azure
purple violet lilac
brown tan beige khaki
white cream ivory beige
yellow gold golden
pink rose magenta fuchsia
purple magenta fuchsia indigo lavender
green teal turquoise olive lime
blue aqua
teal turquoise aqua cyan
brown gold golden bronze maroon
orange peach copper
gray grey charcoal
blond blonde yellow
ok okay fine good
mom mum mother
dad father
phone telephone
photo picture image
road street
sidewalk pavement
shirt tee top
pants trousers jeans
sneakers trainers shoes
glasses spectacles
sea ocean water
sun sunlight
forest woods trees
night dark nighttime
day daytime
big large huge
small little tiny
fall autumn
trash garbage rubbish litter waste bin can dustbin wastebasket
faucet tap spigot
elevator lift
flashlight torch
soda pop coke cola
fries chips crisps
cellphone smartphone mobile phone telephone
noon midday
dinner supper
evening dusk twilight sunset
granite stone rock
round circle circular
square box rectangle rectangular
soccer football
beach shore coast
cat feline kitten tabby siamese
dog canine hound puppy labrador retriever poodle terrier beagle bulldog husky shepherd collie dachshund chihuahua corgi
bird fowl chicken hen rooster duck goose swan pigeon dove seagull gull parrot owl eagle hawk crow raven sparrow penguin
horse pony stallion mare foal donkey mule
cow cattle bull calf ox steer buffalo
sheep lamb ram ewe goat
fish salmon trout tuna goldfish
boat ship vessel yacht ferry canoe kayak sailboat
car sedan suv taxi cab jeep van minivan automobile
truck lorry pickup semi trailer
bus coach minibus
train tram subway locomotive
plane airplane aeroplane jet airliner aircraft
bike bicycle cycle
motorcycle motorbike moped scooter
bread bun roll loaf toast baguette
cake cupcake pastry pie dessert
hat cap helmet beanie
bag purse handbag backpack suitcase luggage
cup mug glass
plate dish bowl saucer
tv television monitor screen display
laptop computer notebook
couch sofa loveseat
rug carpet mat
jacket coat blazer hoodie
sweater jumper pullover
child kid boy girl baby toddler
mirror reflection
wood wooden timber
stone rock concrete brick
chef cook
policeman officer cop
sleeping resting lying asleep
happy smiling
standing upright stood
sit sat sitting seated
lie lying lay laid
run ran running
ride rode riding
drive drove driving
eat ate eating
drink drank drinking
swim swam swimming
fly flew flying
dutch netherlands holland
french france
spanish spain
greek greece
turkish turkey
danish denmark
uk england britain british english
us usa america american
christmas xmas
barbecue bbq
top upper
bottom lower
center centre middle
store shop
"""


def named_alike(word: str, other: str) -> bool:
    """Whether two words may be names of one thing.

    >>> named_alike("sofa", "couch"), named_alike("gray", "grey"), named_alike("red", "blue")
    (True, True, False)
    """
    from reward.text.coco_vocabulary import VOCABULARY  # its table is made when it is first needed

    thing = VOCABULARY.canonical(word)
    if thing is not None and thing == VOCABULARY.canonical(other):
        return True
    lines = _lines()
    return bool(lines.get(word, frozenset()) & lines.get(other, frozenset()))


@lru_cache(1)
def _lines() -> dict[str, frozenset[int]]:
    """The lines that each word stands in."""
    lines = [line.split() for line in _ALIKE.strip().splitlines()]
    return {word: frozenset(i for i, of in enumerate(lines) if word in of) for line in lines for word in line}
