"""Function calling: tools in the system block, a call as JSON, a response, and an answer that uses it."""

from __future__ import annotations

import json
import random

from .names import person, town
from .text import Pairs, as_typed

# The two texts around the list of tools are also in `chat_template.jinja`.
TOOLS_BEFORE = "# Tools\n\nYou may call a function to answer the user. The functions are:\n<tools>"
TOOLS_AFTER = (
    '\n</tools>\n\nTo call one, answer with its name and arguments as JSON:\n<tool_call>\n{"name": ..., "arguments": ...}\n</tool_call>'
)

STRING, INTEGER = "string", "integer"
TOOLS = [  # name, description, argument name, type, questions, response keys, answer
    ("get_weather", "Get the weather in a city", "city", STRING, ["What is the weather in {v}?", "How is the weather in {v}?", "Is it raining in {v}?"], "weather", "The weather in {v} is {r}."),
    ("get_temperature", "Get the temperature in a city", "city", STRING, ["How warm is it in {v}?", "What is the temperature in {v}?"], "degrees", "It is {r} degrees in {v}."),
    ("get_time", "Get the time in a city", "city", STRING, ["What time is it in {v}?", "Tell me the time in {v}."], "time", "It is {r} in {v}."),
    ("get_population", "Get how many people live in a place", "place", STRING, ["How many people live in {v}?", "What is the population of {v}?"], "population", "{r} people live in {v}."),
    ("find_phone_number", "Find the phone number of a person", "name", STRING, ["What is the phone number of {v}?", "Find the number of {v}."], "number", "The number of {v} is {r}."),
    ("send_message", "Send a message to a person", "to", STRING, ["Send a message to {v}.", "Write to {v}."], "status", "Your message to {v} was {r}."),
    ("set_timer", "Set a timer", "minutes", INTEGER, ["Set a timer for {v} minutes.", "Wake me in {v} minutes."], "status", "The timer of {v} minutes is {r}."),
    ("get_price", "Get the price of a product", "product", STRING, ["What is the price of a {v}?", "How much does a {v} cost?"], "price", "A {v} costs {r} dollars."),
    ("search", "Search the web", "query", STRING, ["Search the web for {v}.", "Look up {v}."], "results", "I found {r} results for {v}."),
    ("open_door", "Open a door of the house", "room", STRING, ["Open the door of the {v}.", "Please open the {v}."], "status", "The door of the {v} is {r}."),
    ("turn_on_light", "Turn on the light in a room", "room", STRING, ["Turn on the light in the {v}.", "Light in the {v}, please."], "status", "The light in the {v} is {r}."),
    ("play_music", "Play a song", "song", STRING, ["Play the song {v}.", "I want to hear {v}."], "status", "The song {v} is {r}."),
]
ROOMS = "kitchen garden library attic cellar office hall bedroom garage".split()
PRODUCTS = "lamp table guitar book coat bicycle camera kettle clock violin".split()
SONGS = "Yesterday Moonlight Summertime Greensleeves Hallelujah Imagine Lullaby".split()


def value(rng: random.Random, argument: str) -> str | int:
    if argument == "minutes":
        return rng.randint(1, 60)
    if argument in ("city", "place"):
        return town(rng)
    if argument in ("name", "to"):
        return person(rng)
    return rng.choice({"room": ROOMS, "product": PRODUCTS, "query": PRODUCTS, "song": SONGS}[argument])


def response(rng: random.Random, key: str) -> str | int:
    return {
        "weather": rng.choice(["sunny", "rainy", "cloudy", "windy", "foggy"]), "degrees": rng.randint(-10, 38), "time": f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
        "population": rng.randint(10, 999) * 1000, "number": f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}", "status": rng.choice(["done", "ready", "on its way"]),
        "price": rng.randint(2, 400), "results": rng.randint(2, 90),
    }[key]


def schema(tool: tuple) -> dict:
    name, description, argument, kind, *_ = tool
    parameters = {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def system_block(system: str, schemas: list[dict]) -> str:
    lines = "".join("\n" + json.dumps(s, ensure_ascii=False) for s in schemas)
    return (f"{system}\n\n" if system else "") + TOOLS_BEFORE + lines + TOOLS_AFTER


def tool_use(rng: random.Random) -> tuple[list[dict], Pairs]:
    """The tools of a conversation, and its turns. A tool's response arrives as a user turn."""
    tools = rng.sample(TOOLS, rng.randint(1, 4))
    pairs: Pairs = []
    for _ in range(rng.choice([1, 1, 2])):
        name, _, argument, _, asks, key, said = rng.choice(tools)
        v = value(rng, argument)
        call = json.dumps({"name": name, "arguments": {argument: v}})
        pairs.append((as_typed(rng, rng.choice(asks).format(v=v), typos=False), f"<tool_call>\n{call}\n</tool_call>"))
        r = response(rng, key)
        body = json.dumps({key: r}) if rng.random() < 0.7 else str(r)
        pairs.append((f"<tool_response>\n{body}\n</tool_response>", said.format(v=v, r=r)))
    return [schema(t) for t in tools], pairs
