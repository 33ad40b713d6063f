"""Simple facts that the script writes itself: the calendar, planets, capitals, counting legs."""

from __future__ import annotations

import random

from .lists import CAPITALS, DAYS, MONTHS, MONTH_DAYS, PLANETS, RAINBOW, SEASONS
from .text import Pairs, as_typed

FACTS = [line.split(" = ") for line in """
How many days are in a week?|How many days does a week have? = A week has seven days.
How many months are in a year?|How many months does a year have? = A year has twelve months.
How many days are in a year?|How many days does a year have? = A year has 365 days, and a leap year has 366.
How many weeks are in a year? = A year has 52 weeks.
How many hours are in a day?|How many hours does a day have? = A day has 24 hours.
How many minutes are in an hour?|How many minutes does an hour have? = An hour has 60 minutes.
How many seconds are in a minute? = A minute has 60 seconds.
How many years are in a century? = A century has one hundred years.
What is a leap year? = A leap year is a year with 366 days. It comes every four years, and its extra day is 29 February.
How many seasons are there?|What are the seasons?|Name the four seasons.|List the seasons. = There are four seasons: spring, summer, autumn and winter.
What are the days of the week?|List the days of the week.|Name the days of the week. = The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.
What are the months of the year?|List the months.|Name the twelve months. = The months are January, February, March, April, May, June, July, August, September, October, November and December.
What are the colors of the rainbow?|Name the colors of the rainbow.|How many colors does a rainbow have? = The seven colors of the rainbow are red, orange, yellow, green, blue, indigo and violet.
What are the planets?|List the planets.|Name the planets of the solar system.|How many planets are there? = The eight planets are Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.
Which planet is the largest?|What is the largest planet? = Jupiter is the largest planet of our solar system.
Which planet is the smallest? = Mercury is the smallest planet of our solar system.
Which planet is closest to the sun? = Mercury is the planet closest to the sun.
Which planet do we live on? = We live on the planet Earth.
What does the earth go around? = The earth goes around the sun, and it takes one year to do so.
What goes around the earth? = The moon goes around the earth.
How many legs does a spider have? = A spider has eight legs.
How many legs does an insect have?|How many legs does an ant have?|How many legs does a bee have? = It has six legs, like every insect.
How many legs does a dog have?|How many legs does a cat have?|How many legs does a horse have? = It has four legs.
How many legs does a bird have? = A bird has two legs.
How many legs does a snake have? = A snake has no legs.
How many strings does a violin have? = A violin has four strings.
How many strings does a guitar have? = A guitar has six strings.
How many keys does a piano have? = A piano has 88 keys.
How many wheels does a car have? = A car has four wheels.
How many wheels does a bicycle have? = A bicycle has two wheels.
How many sides does a triangle have? = A triangle has three sides.
How many sides does a square have? = A square has four equal sides.
How many fingers does a hand have? = A hand has five fingers, if you count the thumb.
How many letters are in the alphabet?|How many letters does the alphabet have? = The English alphabet has 26 letters.
What are the vowels?|Which letters are vowels? = The vowels are A, E, I, O and U.
Say the alphabet.|What is the alphabet?|Recite the alphabet. = A B C D E F G H I J K L M N O P Q R S T U V W X Y Z.
What is the first letter of the alphabet? = The first letter of the alphabet is A.
What is the last letter of the alphabet? = The last letter of the alphabet is Z.
What color is the sky? = A clear sky is blue by day and black at night.
What color is grass? = Grass is green.
What color is snow? = Snow is white.
What color is blood? = Blood is red.
What color is a banana? = A ripe banana is yellow.
What color is a lemon? = A lemon is yellow.
What do you get when you mix red and blue?|What color do red and blue make? = Red and blue make purple.
What do you get when you mix blue and yellow?|What color do blue and yellow make? = Blue and yellow make green.
What do you get when you mix red and yellow?|What color do red and yellow make? = Red and yellow make orange.
What do bees make? = Bees make honey.
What do cows give us? = Cows give us milk.
What do chickens lay? = Chickens lay eggs.
What do rabbits eat? = Rabbits eat grass and other plants.
What does a dog say? = A dog barks.
What does a cat say? = A cat says meow.
What does a cow say? = A cow says moo.
Which animal is the largest?|What is the largest animal? = The blue whale is the largest animal.
Which animal is the tallest?|What is the tallest animal? = The giraffe is the tallest animal.
Which bird cannot fly? = A penguin cannot fly, and neither can an ostrich.
Where does the sun rise? = The sun rises in the east.
Where does the sun set? = The sun sets in the west.
When does water freeze?|At what temperature does water freeze? = Water freezes at 0 degrees Celsius.
When does water boil?|At what temperature does water boil? = Water boils at 100 degrees Celsius.
What is ice made of? = Ice is frozen water.
What is bread made of? = Bread is made of flour, water and yeast.
What is paper made of? = Paper is made of wood.
What is glass made of? = Glass is made of sand.
What is cheese made of? = Cheese is made of milk.
Which season is the coldest?|What is the coldest season? = Winter is the coldest season.
Which season is the warmest?|What is the warmest season? = Summer is the warmest season.
What are the points of the compass? = The points of the compass are north, east, south and west.
How many continents are there?|Name the continents. = There are seven continents: Africa, Antarctica, Asia, Australia, Europe, North America and South America.
How many squares does a chess board have? = A chess board has 64 squares.
How many players are in a football team? = A football team has eleven players.
What are the five senses?|Name the five senses. = The five senses are sight, hearing, smell, taste and touch.
How many are a dozen?|What is a dozen? = A dozen is twelve.
How many centimeters are in a meter? = A meter has 100 centimeters.
How many meters are in a kilometer? = A kilometer has 1,000 meters.
How many grams are in a kilogram? = A kilogram has 1,000 grams.
What is the capital letter of a? = The capital letter of a is A.
Can a fish fly? = No, most fish swim and do not fly.
Can a penguin fly? = No, a penguin cannot fly, but it swims very well.
Can a dog fly? = No, a dog cannot fly.
Can a bird fly? = Yes, most birds can fly.
Is the earth flat? = No, the earth is round like a ball.
Is the sun a star? = Yes, the sun is a star.
Is the moon a planet? = No, the moon is not a planet. It circles the earth.
""".strip().splitlines()]

COLOR_OF_SEASON = {"spring": "flowers begin to grow", "summer": "the days are long and warm", "autumn": "the leaves fall", "winter": "the days are short and cold"}


def fact(rng: random.Random) -> Pairs:
    asked, said = rng.choice(FACTS)
    return [(as_typed(rng, rng.choice(asked.split("|"))), said)]


def capital(rng: random.Random) -> Pairs:
    country, city = rng.choice(list(CAPITALS.items()))
    if rng.random() < 0.15:
        return [(as_typed(rng, f"{city} is the capital of which country?", typos=False), f"{city} is the capital of {country}.")]
    ask = rng.choice(["What is the capital of {c}?", "What's the capital of {c}?", "capital of {c}", "Which city is the capital of {c}?", "Tell me the capital of {c}.", "I want to know the capital of {c}.", "Please tell me the capital of {c}.", "Do you know the capital of {c}?", "Name the capital of {c}.", "What city is the capital of {c}?", "I am looking for the capital of {c}.", "Which is the capital of {c}?", "The capital of {c}?", "Can you tell me the capital of {c}?", "Give me the capital of {c}."])
    pairs = [(as_typed(rng, ask.format(c=country), typos=False), f"The capital of {country} is {city}.")]
    if rng.random() < 0.3:
        country, city = rng.choice(list(CAPITALS.items()))
        pairs.append((as_typed(rng, rng.choice([f"And of {country}?", f"What about {country}?", f"And the capital of {country}?"]), typos=False), f"The capital of {country} is {city}."))
    return pairs


def around(rng: random.Random) -> Pairs:
    names, noun = rng.choice([(DAYS, "day"), (MONTHS, "month"), (SEASONS, "season")])
    i = rng.randrange(len(names))
    if rng.random() < 0.5:
        return [(as_typed(rng, rng.choice([f"Which {noun} comes after {names[i]}?", f"What comes after {names[i]}?"])), f"{names[(i + 1) % len(names)].capitalize()} comes after {names[i]}.")]
    return [(as_typed(rng, rng.choice([f"Which {noun} comes before {names[i]}?", f"What comes before {names[i]}?"])), f"{names[i - 1].capitalize()} comes before {names[i]}.")]


ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()


def nth(rng: random.Random) -> Pairs:
    names, of = rng.choice([(DAYS, "day of the week"), (MONTHS, "month of the year"), (PLANETS, "planet from the sun"), (RAINBOW, "color of the rainbow")])
    i = rng.randrange(len(names))
    return [(as_typed(rng, f"What is the {ORDINALS[i]} {of}?"), f"The {ORDINALS[i]} {of} is {names[i]}.")]


def month_length(rng: random.Random) -> Pairs:
    i = rng.randrange(12)
    extra = ", and 29 in a leap year" if i == 1 else ""
    return [(as_typed(rng, rng.choice([f"How many days does {MONTHS[i]} have?", f"How many days are in {MONTHS[i]}?"])), f"{MONTHS[i]} has {MONTH_DAYS[i]} days{extra}.")]


def season(rng: random.Random) -> Pairs:
    name, what = rng.choice(list(COLOR_OF_SEASON.items()))
    return [(as_typed(rng, rng.choice([f"What is {name}?", f"What happens in {name}?", f"Tell me about {name}."])),
             f"{name.capitalize()} is one of the four seasons. In {name} {what}.")]


def world(rng: random.Random) -> Pairs:
    topic = rng.choices([fact, capital, around, nth, month_length, season], [6, 2.5, 1.2, 1, 0.7, 0.4])[0]
    return topic(rng)
