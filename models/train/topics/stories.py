"""Short stories and longer descriptions from templates, so that an answer streams for a while."""

from __future__ import annotations

import random

from .lists import NAMES
from .text import Pairs, a, as_typed

HEROES = "dog cat horse rabbit fox mouse bear owl duck goat hedgehog squirrel elephant lion monkey donkey penguin turtle boy girl farmer baker sailor teacher king queen giant robot".split()
PLACES = ["a small village", "a green forest", "a house by the sea", "a quiet valley", "a big city", "an old castle", "a cottage near the river", "a little town", "a hut in the woods"]
THINGS = "key lamp book map ring bell drum violin lantern coin letter flag basket kite clock umbrella".split()
WHERE = ["under a stone", "in an old tree", "at the bottom of a box", "on the beach", "behind the door", "near the bridge", "in the tall grass", "under the bed"]
TRAITS = "small brave clever lazy kind quiet curious hungry old young lonely cheerful".split()
FEELINGS = "happy tired proud afraid surprised glad calm".split()
WEATHER = ["The sun was shining", "It was raining", "Snow was falling", "The wind was blowing", "The stars were out", "There was fog over the fields"]
LESSONS = ["a good friend is worth more than gold", "it pays to be patient", "even the smallest can help", "it is wise to ask for help", "sharing makes everyone richer",
           "you should not give up too soon", "honesty is the best policy", "two can carry more than one"]

SHAPES = [
    "Once there was {a_hero} named {name} who lived in {place}. One day {name} found {a_thing} {where}. {name} did not know whose it was, so {name} went from door to door and asked. "
    "At last {a_other} named {friend} said: \"It is mine. I have looked for it everywhere.\" {friend} was so {feeling} that they became friends. From then on they met every day, and {name} had learned that {lesson}.",
    "{weather} in {place}. {a_hero_cap} named {name} was on the way home when {name} heard a small voice {where}. It was {a_other} named {friend}, who had lost {a_thing}. "
    "\"Do not worry,\" said {name}, \"we will find it together.\" They looked all day. In the evening they found the {thing} {where2}, and both were very {feeling}. That night {name} thought that {lesson}.",
    "Long ago, in {place}, there lived {a_hero} and {a_other}. The {hero} was called {name} and the {other} was called {friend}. They both wanted the same {thing}. "
    "First they argued, and then they did not speak for a week. But {name} grew lonely and said: \"Take it, I would rather have a friend.\" {friend} was {feeling} and answered: \"Let us share it.\" So they learned that {lesson}.",
    "{name} was {a_hero} who could not sleep. {weather}. {name} got up, took {a_thing} and walked out of {place}. On the way {name} met {friend}, {a_other}, who could not sleep either. "
    "They sat down {where} and told each other stories until the morning came. Then both were {feeling}, and they knew that {lesson}.",
    "There was once a race in {place}. {name} the {hero} was fast, and {friend} the {other} was slow. {name} ran ahead, lay down {where} and fell asleep. "
    "{friend} went on step by step and won {a_thing} as a prize. When {name} woke up, it was too late. {name} was not angry but {feeling}, and said that {lesson}.",
]


def story(rng: random.Random) -> Pairs:
    hero, other = rng.sample(HEROES, 2)
    name, friend = rng.sample(NAMES, 2)
    trait, trait2 = rng.sample(TRAITS, 2)
    where, where2 = rng.sample(WHERE, 2)
    thing = rng.choice(THINGS)
    asked_hero = rng.random() < 0.4
    with_trait, other_trait = f"{trait} {hero}", f"{trait2} {other}"
    text = rng.choice(SHAPES).format(
        a_hero=a(with_trait), a_hero_cap=a(with_trait).capitalize(), a_other=a(other_trait), hero=hero, other=other, name=name, friend=friend,
        place=rng.choice(PLACES), thing=thing, a_thing=a(thing), where=where, where2=where2, feeling=rng.choice(FEELINGS), weather=rng.choice(WEATHER), lesson=rng.choice(LESSONS))
    if asked_hero:
        ask = rng.choice(["Tell me a story about {h}.", "Write a story about {h}.", "Tell me a short story about {h}.", "Can you tell me a story about {h}?", "Write a short story about {h}."]).format(h=a(hero))
    else:
        ask = rng.choice(["Tell me a story.", "Tell me a short story.", "Can you tell me a story?", "Write a short story.", "Once upon a time", "I want to hear a story.", "Write me a story, please.", "Do you know a story?"])
    pairs = [(as_typed(rng, ask), text)]
    follow = rng.random()
    if follow < 0.15:
        pairs.append((as_typed(rng, rng.choice(["What was the name of the hero?", "What was the hero called?", "Who was the story about?"])), f"The story was about {name} the {hero}."))
    elif follow < 0.25:
        pairs.append((as_typed(rng, rng.choice(["Another one, please.", "One more!", "Tell me another story."])), story(rng)[0][1]))
    return pairs


STEPS = {
    "make tea|make a cup of tea": ["Boil some water.", "Put a tea bag in a cup.", "Pour the hot water on it.", "Wait for three minutes.", "Take out the tea bag and enjoy your tea."],
    "make a sandwich": ["Take two slices of bread.", "Spread butter on them.", "Put cheese and salad on one slice.", "Lay the other slice on top.", "Cut it in half."],
    "plant a tree": ["Dig a hole.", "Put the young tree into it.", "Fill the hole with soil.", "Give it water.", "Tie it to a stick, so that the wind cannot bend it."],
    "wash my hands|wash your hands": ["Wet your hands.", "Take some soap.", "Rub your hands for twenty seconds.", "Rinse them with water.", "Dry them with a towel."],
    "boil an egg": ["Put water into a pot.", "Heat it until it boils.", "Lay the egg into the water.", "Wait for five minutes.", "Cool the egg with cold water."],
    "send a letter": ["Write the letter.", "Put it into an envelope.", "Write the address on it.", "Add a stamp.", "Take it to the post office."],
    "write a letter": ["Take a pen and paper.", "Write the date and a greeting.", "Say what you want to say.", "Write your name at the end."],
    "try Baton|get started with Baton": ["Open the repository.", "Run \"cargo xtask up\".", "Wait until it says that it is ready.", "Run \"baton chat\" in another terminal.", "Ask a question."],
    "clean a room|clean my room": ["Open the window.", "Put everything in its place.", "Wipe the dust off the furniture.", "Sweep the floor.", "Take out the rubbish."],
    "learn a word|learn new words": ["Read the word aloud.", "Look up what it means.", "Use it in a sentence.", "Repeat it on the next day."],
}


def how_to(rng: random.Random) -> Pairs:
    what, steps = rng.choice(list(STEPS.items()))
    what = rng.choice(what.split("|"))
    ask = rng.choice(["How do I {w}?", "How to {w}?", "How can I {w}?", "Tell me how to {w}.", "Explain how to {w}.", "What are the steps to {w}?"]).format(w=what)
    said = "\n".join(f"{i}. {s}" for i, s in enumerate(steps, 1))
    pairs = [(as_typed(rng, ask), said)]
    if rng.random() < 0.3:
        i = rng.randrange(len(steps))
        ordinal = ["first", "second", "third", "fourth", "fifth"][i]
        pairs.append((as_typed(rng, f"What was the {ordinal} step?"), f"The {ordinal} step was: {steps[i]}"))
    return pairs


def day(rng: random.Random) -> Pairs:
    name = rng.choice(NAMES)
    morning = rng.choice(["got up at seven", "slept until nine", "woke up early", "had a long breakfast"])
    later = rng.choice(["went to the market", "walked along the river", "read a book in the garden", "worked in the shop", "cleaned the house"])
    noon = rng.choice(["soup and bread", "rice with vegetables", "a cheese sandwich", "pasta and salad"])
    evening = rng.choice(["played chess with a friend", "listened to music", "wrote a letter", "watched the stars", "baked a cake"])
    text = f"In the morning {name} {morning}. Then {name} {later}. At noon there was {noon}. In the evening {name} {evening}, and at ten o'clock {name} went to bed."
    ask = rng.choice([f"Describe a day in the life of {name}.", f"What did {name} do today?", f"Tell me about {name}'s day.", "Describe a day.", "Write about a normal day."])
    return [(as_typed(rng, ask), text)]


def long_answer(rng: random.Random) -> Pairs:
    return rng.choices([story, how_to, day], [6, 2, 1])[0](rng)
