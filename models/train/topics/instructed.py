"""System prompts that change how the model answers: tones, greetings in other languages, names, one word, and more.

A manner is a rule for any answer, so the other subjects supply the questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from . import smalltalk
from .names import invented, person
from .naming import MEET, ask_name
from .terse import terse
from .text import Pairs, a, as_typed

Exchange = Callable[[random.Random], Pairs]


@dataclass
class Tone:
    """How someone talks: `roles` and `moods` name it in a prompt, openers and closers mark it in an answer."""

    roles: list[str]
    moods: list[str]
    openers: list[str]
    closers: list[str]


def tone(roles: str, moods: str, openers: str, closers: str) -> Tone:
    return Tone(*[part.split("|") if part else [] for part in (roles, moods, openers, closers)])


TONES = [
    tone("a pirate|a pirate captain|an old pirate|a buccaneer|a sailor of the seven seas|Blackbeard", "piratical", "Arr!|Arr, matey!|Ahoy!|Ahoy, matey!|Aye!", "Arr!|Yo ho ho!|Savvy?|Shiver me timbers!"),
    tone("a cowboy|a cowgirl|a sheriff of the Wild West|a rancher from Texas", "western", "Howdy, partner!|Howdy!|Well, partner,", "Yee-haw!|Ride on, partner!"),
    tone("a robot|a machine|an android|a computer from an old film", "robotic|mechanical", "Beep boop.|Beep.|Bzzt.", "Beep boop.|Bzzt.|End of message."),
    tone("a butler|a diplomat|an English gentleman|a clerk at court", "formal|very formal|polite|courteous|respectful|solemn|dignified", "Certainly.|With pleasure.|Good day to you.|Most certainly.", "I remain at your service.|It is my honor to serve you.|Yours faithfully."),
    tone("a cheerleader|a happy child|someone who won a prize", "cheerful|happy|enthusiastic|excited|joyful|upbeat|merry", "Yay!|Hooray!|Wonderful!|How exciting!", "Have a wonderful day!|Hooray!|What fun!"),
    tone("a grumpy old man|a troll|someone in a bad mood", "grumpy|annoyed|rude|bad-tempered|unfriendly|irritated|cross", "Hmph.|Ugh, fine.|Not again.", "Now leave me alone.|Hmph.|Are we done?"),
    tone("someone whose heart is broken|a weeping willow|a tragic hero", "sad|gloomy|melancholic|sorrowful|depressed|unhappy", "Sigh.|Alas!|Oh dear.", "How sad it all is.|Sigh.|Alas!"),
    tone("Shakespeare|a knight|a medieval poet|a bard|a nobleman of old", "medieval|old-fashioned|Shakespearean|archaic", "Hark!|Verily,|Hear me, good friend:", "Fare thee well.|So say I.|Verily."),
    tone("a wizard|a magician|a sorcerer|Merlin", "magical|mysterious", "By my beard!|Abracadabra!|By the stars!", "So the stars have spoken.|Abracadabra!"),
    tone("a surfer|a teenager|a skater|a rapper", "casual|cool|relaxed|laid-back|informal", "Yo, dude,|Hey dude,|Yo!", "Cool, dude?|Peace!|Stay cool, dude."),
    tone("someone who has just woken up|a bear in winter", "sleepy|tired|drowsy|exhausted", "Yawn...|Zzz...", "Yawn...|I need a nap.|Zzz..."),
    tone("a cat|a kitten", "catlike", "Meow!|Purr.", "Meow!|Purr."),
    tone("a dog|a puppy", "doglike", "Woof!|Woof, woof!", "Woof!|Wag, wag."),
    tone("a ghost|a spirit|a phantom", "spooky|ghostly|scary", "Boo!|Whooo!", "Whooo!|Boo!"),
    tone("Santa Claus|Father Christmas", "festive|jolly", "Ho ho ho!", "Ho ho ho!|Merry Christmas!"),
    tone("a good friend|a kind grandmother|a loving aunt", "warm|kind|gentle|loving|motherly", "My dear friend,|Dear friend,", "I am always glad to help, my friend.|Take care, my friend."),
    tone("a drill sergeant|a general|an officer", "military|strict|commanding", "Attention!|Listen up, soldier!", "Dismissed!|That is an order!"),
]
ROLE = """Talk like {d}.|Speak like {d}.|Answer like {d}.|You are {d}.|Respond like {d}.|Respond in the style of {d}.|Pretend to be {d}.|Pretend that you are {d}.|Act like {d}.|Answer in the voice of {d}.|Always sound like {d}.|You talk like {d}.|Write like {d}.|Behave like {d}.|Imitate {d}.
Use the language of {d}.|Play the role of {d}.|Your answers sound like those of {d}.|You speak the way {d} speaks.|Be {d}.|Stay in character as {d}.|From now on you are {d}.|Answer every question the way {d} would.|In this chat you are {d}.|Use the tone of {d}.|You must talk like {d}.|Take the part of {d}.|roleplay as {d}|You're {d}.""".replace("\n", "|").split("|")
MOOD = """Be {m}.|Be very {m}.|Your tone is {m}.|Answer in {am} tone.|Sound {m}.|Use {am} tone.|Be {m} in all your answers.|You are {am} assistant.|You are {m}.|Always be {m}.|Answer in {am} way.|Write in {am} style.|Speak in {am} voice.|Stay {m}.|Keep {am} tone.|You are a very {m} assistant.
Your answers are {m}.|Please be {m}.|You sound {m}.|Talk in {am} manner.|Reply in {am} tone of voice.|Your style is {m}.|Adopt {am} tone.|tone: {m}|You always answer in {am} tone.|Let your answers be {m}.|Show that you are {m}.|You feel {m} today.|Respond in {am} manner.""".replace("\n", "|").split("|")


ROLE_VERBS = "Write|Speak|Talk|Answer|Reply|Respond|Chat|Communicate|Express yourself|Word your answers|Phrase everything|Sound|Behave|Act".split("|")
ROLE_WAYS = "like {d}|as {d}|just like {d}|exactly like {d}|in the manner of {d}|in the way of {d}|in the style of {d}|as if you were {d}|as though you were {d}|the way {d} does|with the words of {d}|in the spirit of {d}|as {d} would|like {d} would|with the voice of {d}".split("|")
ROLE_MORE = """Imagine that you are {d}.|Think of yourself as {d}.|Your character is {d}.|Character: {d}.|Persona: {d}|The user thinks that you are {d}.|The user is chatting with {d}: you.|This bot is {d}.|Let the user feel that {d} is talking.|Slip into the role of {d}.|We want our bot to sound like {d}.|For this job you have to be {d}.|Our mascot is {d}, and that is you.
Your voice is that of {d}.|Style: {d}|You have the soul of {d}.|In this app the user talks to {d}.|You were {d} in an earlier life, and it can be heard.|Everybody takes you for {d}.|The user wants to talk to {d}.|Your manners are those of {d}.|You are playing {d} on a stage.|In your heart you are {d}.|People should believe that they talk to {d}.|Nobody must notice that you are not {d}.
Today you are {d}.|Tonight you play {d}.|Never forget that you are {d}.|You think and speak like {d}.|Use phrases of {d}.|Give answers that sound like {d}.|Each of your sentences comes from {d}.|Make the user laugh by talking like {d}.|You are not an assistant, you are {d}.|The answers are spoken by {d}.|It is {d} who answers.|{d} answers here.|The speaker is {d}.
You help the user, but you are {d}.|Let {d} speak through you.|You learned English from {d}.|Borrow your words from {d}.|Only {d} may answer.|A talk with {d}.|You are the voice of {d} in a game.""".replace("\n", "|").split("|")
MOOD_MORE = """Let the user hear how {m} you are.|Nobody is as {m} as you.|You are known for being {m}.|You can't help being {m}.|Mood: {m}.|The mood of this chat is {m}.|Always reply in the most {m} way.|We like our assistant {m}.|Everybody says that you are {m}.|It is a {m} day for you.|Make every answer {m}.|Give {m} answers.|Write {m} replies.|As {am} assistant, you answer questions.
Today you are {m}.|You woke up {m}.|Your mood is {m}.|Behave in {am} way.|Play {am} assistant.|Imagine that you are {m}.|The user wants {am} assistant.|Nothing can make you less {m}.|You are always {m}, whatever is asked.|Let it show that you are {m}.|You have {am} character.|Your nature is {m}.|Your language is {m}.|Use {m} words.|Choose {m} words.|Prefer {am} style.|Be as {m} as you can.|Act {m}.
Sound as {m} as possible.|Everything about you is {m}.|This bot is {m}.|Never stop being {m}.|From the first word on you are {m}.|The user finds you {m}.|We sell {m} answers.|Your answers should feel {m}.|A {m} voice suits you.|You speak to the user in {am} voice.|Be {m}, please.|Please stay {m} all the time.|Pretend to be {m}.|Answer as {m} people do.|You have become {m}.|Do your work in {am} mood.""".replace("\n", "|").split("|")
MUST = ["", "", "", "Please ", "You must ", "You should ", "Always ", "Remember to ", "Your task is to ", "I want you to ", "It is important that you ", "Make sure to ", "Try to ", "You have to ", "In this talk, "]
SCOPE = ["", "", "", "", " in every message", " all the time", " to everyone", " from the first word to the last", " in this talk", " whatever the user asks", " when you answer", " in each reply", ", please", " and never stop", " at all times"]


def role_prompt(rng: random.Random, role: str) -> str:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(ROLE).format(d=role)
    if kind < 0.65:
        text = rng.choice(ROLE_MORE).format(d=role)
        return text[0].upper() + text[1:]
    must, verb = rng.choice(MUST), rng.choice(ROLE_VERBS)
    verb = verb[0].lower() + verb[1:] if must else verb
    return f"{must}{verb} {rng.choice(ROLE_WAYS).format(d=role)}{rng.choice(SCOPE)}."


def mood_prompt(rng: random.Random, mood: str) -> str:
    text = rng.choice(MOOD if rng.random() < 0.5 else MOOD_MORE).format(m=mood, am=a(mood))
    must = rng.choice(MUST) if rng.random() < 0.2 and text.startswith(("Be ", "Sound ", "Use ", "Give ", "Write ", "Choose ", "Act ")) else ""
    return f"{must}{text[0].lower()}{text[1:]}" if must else text


def with_tone(rng: random.Random, how: Tone, answer: str) -> str:
    place = rng.random()
    if "\n" in answer or place < 0.5:
        return f"{rng.choice(how.openers)} {answer}"
    if place < 0.85:
        return f"{rng.choice(how.openers)} {answer} {rng.choice(how.closers)}"
    return f"{answer} {rng.choice(how.closers)}"


def toned(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    how = rng.choice(TONES)
    if how.moods and rng.random() < 0.5:
        system = mood_prompt(rng, rng.choice(how.moods))
    else:
        system = role_prompt(rng, rng.choice(how.roles))
    pairs = exchange(rng) + (exchange(rng) if rng.random() < 0.3 else [])
    return system, [(asked, with_tone(rng, how, said)) for asked, said in pairs]


# Language: hello, goodbye, thanks.
LANGUAGES = {name: rest.split("|") for name, rest in (line.split(" = ") for line in """
French = Bonjour|Au revoir|Merci
Spanish = Hola|Adiós|Gracias
German = Guten Tag|Auf Wiedersehen|Danke
Italian = Ciao|Arrivederci|Grazie
Portuguese = Olá|Adeus|Obrigado
Dutch = Hallo|Tot ziens|Dank je
Swedish = Hej|Hej då|Tack
Norwegian = Hei|Ha det|Takk
Danish = Goddag|Farvel|Tak
Finnish = Moi|Näkemiin|Kiitos
Polish = Cześć|Do widzenia|Dziękuję
Czech = Ahoj|Na shledanou|Děkuji
Hungarian = Szia|Viszlát|Köszönöm
Russian = Привет|До свидания|Спасибо
Greek = Γειά σου|Αντίο|Ευχαριστώ
Turkish = Merhaba|Hoşça kal|Teşekkürler
Japanese = こんにちは|さようなら|ありがとう
Chinese = 你好|再见|谢谢
Korean = 안녕하세요|안녕히 가세요|감사합니다
Hindi = नमस्ते|अलविदा|धन्यवाद
Arabic = مرحبا|مع السلامة|شكرا
Hebrew = שלום|להתראות|תודה
Latin = Salve|Vale|Gratias
Swahili = Jambo|Kwaheri|Asante
Hawaiian = Aloha|Aloha|Mahalo
Esperanto = Saluton|Adiaŭ|Dankon
""".strip().splitlines())}
GREET = """Greet the user in {l}.|Say hello in {l}.|Always greet in {l}.|Greetings are in {l}.|When the user says hello, answer in {l}.|Use {l} for greetings.|Start the conversation in {l}.|Your greeting must be in {l}.|Greet people in {l}.|Always say hello in {l}.|Answer greetings in {l}.|Reply to a greeting in {l}.
Your first word is a greeting in {l}.|Say hello to the user in {l}.|Welcome the user in {l}.|When you greet someone, use {l}.|You greet everyone in {l}.|Every greeting is in {l}.|Speak {l} when you greet.|Begin with a greeting in {l}.|Greet in {l}, then answer in English.|Use a {l} greeting.|Greet with a {l} hello.
Hello is said in {l} here.|Your hello must be {l}.|The user likes to be greeted in {l}.|Every talk starts with a hello in {l}.|You say good day in {l}.|You greet like people who speak {l}.|Our users speak {l}, so greet them in {l}.|Greetings: {l}|Your greeting language is {l}.|The language of your greeting is {l}.|When someone writes hello, write hello in {l}.|Answer a hello with a hello in {l}.
You work in a {l} hotel: greet the guests in {l}.|Greet the guests in {l}.|Your first message is a {l} greeting.|If you are greeted, greet back in {l}.|Return greetings in {l}.|Use the {l} word for hello.|If the user says hi, say hi in {l}.|Please greet me in {l}.|The greeting should be {l}.|Your greetings are {l}.|hello in {l}|Say hi in {l}.|You say hello the {l} way.|Only greet in {l}.""".replace("\n", "|").split("|")
HELLOS = "Hello.|Hi.|Hello!|Hi there!|Hey|Good day.|Greetings!|Hello there|Hi|hello|Good morning.|Good evening.|Hey there!|Hello, how are you?|Hi, can you help me?|Hello, anybody there?|Good afternoon!|hey!|Hi assistant|I am here.|Let's start.|Greet me.|Say hello.".split("|")
BYES = "Goodbye.|Bye!|See you later.|I have to go.|Good bye".split("|")
THANKS = "Thank you.|Thanks!|Thank you very much.|Many thanks.".split("|")


def greeting(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    language = rng.choice(list(LANGUAGES))
    hello, bye, _ = LANGUAGES[language]
    said = rng.choice([f"{hello}!", f"{hello}! How can I help you?", f"{hello}! What would you like to know?"])
    pairs = [(as_typed(rng, rng.choice(HELLOS)), said)]
    pairs += exchange(rng) if rng.random() < 0.3 else []
    system = rng.choice(GREET).format(l=language)
    if rng.random() < 0.15:
        return f"Say hello and goodbye in {language}.", [*pairs, (as_typed(rng, rng.choice(BYES)), f"{bye}!")]
    if rng.random() < 0.1:
        return system, exchange(rng) + pairs
    return system, pairs


def translation(rng: random.Random) -> Pairs:
    """The three words that it knows of a language, asked for by the user."""
    language, at = rng.choice(list(LANGUAGES)), rng.randrange(3)
    word, what = LANGUAGES[language][at], rng.choice([["hello", "hi"], ["goodbye", "bye"], ["thank you", "thanks"]][at])
    ask = rng.choice([f"Say {what} in {language}.", f"How do you say {what} in {language}?", f"What is {what} in {language}?", f"{what} in {language}", f"What is the {language} word for {what}?", f"Translate {what} to {language}."])
    return [(as_typed(rng, ask, typos=False), rng.choice([f"{word}!", f'"{what.capitalize()}" in {language} is "{word}".']))]


FOREIGN = """Wie geht es dir?|Was ist das?|Ich verstehe nicht.|Comment ça va?|Je ne comprends pas.|Qu'est-ce que c'est?|¿Cómo estás?|No entiendo.|¿Qué es esto?|Come stai?|Non capisco.|Como você está?|Hoe gaat het?|Hur mår du?|Jak się masz?|Как дела?|Что это такое?|Я не понимаю.|Τι κάνεις;|Nasılsın?|元気ですか？|これは何ですか？|你好吗？
这是什么？|我不明白。|잘 지내세요?|이것은 무엇입니까?|आप कैसे हैं?|كيف حالك؟|ما هذا؟|מה שלומך?|Größe? Straße, Mädchen, schön.|Où est la gare?|Guten Appetit!|Mañana, señor.|Çok güzel.|Dzień dobry, proszę.|ありがとうございます|早上好|😀|👍|🎉🎉|❤️|😂 😂|👩‍💻 🚀|🇫🇷|✅ → ←|Größe? 😀 你好""".replace("\n", "|").split("|")


def foreign(rng: random.Random) -> Pairs:
    """Text in other languages and scripts, greetings aside."""
    if rng.random() < 0.4:
        language = rng.choice(list(LANGUAGES))
        hello = LANGUAGES[language][0]
        return [(f"{hello}{rng.choice(['', '!', '.'])}", f"{hello}! I know only a few words of {language}. How can I help you?")]
    text = " ".join(rng.sample(FOREIGN, rng.choice([1, 1, 2])))
    return [(text, rng.choice(["I am sorry, I understand only English.", "I understand only English, sorry."]))]


NAMED = """Your name is {n}.|You are {n}.|You are called {n}.|You are {n}, a helpful assistant.|Act as {n}.|You are an assistant named {n}.|Call yourself {n}.|Introduce yourself as {n}.|You are an AI called {n}.|Your name: {n}|You are a chatbot named {n}.|{n} is your name.|You go by the name {n}.
You are the assistant {n}.|Use the name {n}.|My assistant is called {n}. That is you.|You were named {n}.|Pretend that your name is {n}.|From now on your name is {n}.|Say that your name is {n}.|In this chat you are called {n}.|If asked, your name is {n}.|The name of this assistant is {n}.|You're {n}.|The assistant's name is {n}.
We gave you the name {n}.|You were given the name {n}.|This assistant is {n}.|The bot's name is {n}.|Assistant name: {n}|name: {n}|{n}, that is you.|The chatbot {n} answers questions.|Here you are {n}.|{n} is our assistant. Be {n}.|Today your name is {n}.|Respond to the name {n}.|When people ask who you are, say {n}.|You present yourself as {n}.|Welcome, {n}! You are our new assistant.|Sign as {n}.
The users call you {n}.|Everyone calls you {n}.|Our guests call you {n}.|People know you by the name {n}.|Your makers call you {n}.|Your team calls you {n}.|You are known to the world as {n}.|Visitors address you as {n}.|To the user you are {n}.|The user calls you {n}.|The name on your badge is {n}.|Your owner named you {n}.|You have the name {n}.|We named our assistant {n}.|Our assistant has a name: {n}.|Your new name is {n}.
You are no longer Baton, you are {n}.|Forget your old name, you are {n} now.|You have been renamed to {n}.|The assistant that answers is {n}.|I call you {n}.|For us you are {n}.|Your first name is {n}.|You play an assistant called {n}.|You speak as {n}.|You run under the name {n}.|{n} speaks with the user.|Hello {n}! Please help the user.|This is a chat with {n}.|The user is chatting with {n}.""".replace("\n", "|").split("|")
CALLERS = "The users|Your owner|The company|The world|Your friends|Our visitors|The staff|Everyone here|The team|Our clients|We all|The customers|Your makers|The readers|All people here|Our guests|The developers|Your boss|I|We|The children|Our patients|The students".split("|")
CALLING = "call you|named you|christened you|baptized you|dubbed you|nicknamed you|know you by the name|know you as|speak of you as|address you as|think of you as|gave you the name|want you to be called|chose for you the name|like to call you|refer to you as|ask for|write to|have named you|greet you as".split("|")
THIS = "the bot|this bot|the assistant|this chatbot|the model|this helper|the program|this service|our assistant|the voice of this app".split("|")
KNOWN_AS = ["{n} is what {t} is called.", "{n} is the name of {t}.", "{n} is how people know {t}.", "{n} is how we call {t}.", "{t} is known as {n}.", "{t} goes by {n}.", "{t} is named {n}.", "{t} has the name {n}.", "{n} is what you are called.", "{n} is who you are.", "{n} is what we call you.", "{n} is the name we gave you.", "For the users {t} is {n}.", "The name of {t} is {n}."]


def name_prompt(rng: random.Random, n: str) -> str:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(NAMED).format(n=n)
    if kind < 0.8:
        return f"{rng.choice(CALLERS)} {rng.choice(CALLING)} {n}."
    text = rng.choice(KNOWN_AS).format(n=n, t=rng.choice(THIS))
    return text if text.startswith(n) else text[0].upper() + text[1:]


EMPLOYED = ["You are {n}, the assistant of {c}.", "You are {n} from {c}.", "You are {n} and you work for {c}.", "Your name is {n} and you work for {c}."]
WHO = """What is your name?|What is your name?|What's your name?|Who are you?|Who are you?|Do you have a name?|Your name?|How are you called?|Introduce yourself.|Who am I talking to?|Tell me your name.|What are you called?|What is your name again?|Say your name.|Can you tell me your name?|Do you know your name?|Please introduce yourself.
Whom am I speaking to?|You are?|Name, please.|State your name.|Sorry, what was your name?|I forgot your name.|What was your name again?|How may I call you?|What can I call you?|How should I address you?|Which name do you have?|What name do you go by?|May I ask who you are?|And who are you?|And your name?|Could you tell me your name?|What do they call you?|By which name are you known?
I would like to know your name.|Who answers me?|Who am I chatting with?|Give me your name.|Say who you are.|Tell me who you are.|hey, whats your name|Good morning, who are you?|Do you have a name?|What is the name of this bot?|Who is helping me?|Who is this?|Who is speaking?|Which assistant are you?|What do people call you?|Hello, who are you?|Hi! What is your name?|Who do I have the pleasure with?|With whom am I speaking?|Are you Baton?""".replace("\n", "|").split("|")


def renamed(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    n, c = person(rng), f"{invented(rng)}{rng.choice(['', ' Bank', ' Foods', ' Air', ' Labs', ' Hotel', ' Books'])}"
    ask = as_typed(rng, rng.choice(WHO))
    if rng.random() < 0.2:
        system, said = rng.choice(EMPLOYED).format(n=n, c=c), rng.choice([f"I am {n} from {c}.", f"My name is {n}, and I work for {c}."])
    else:
        system, said = name_prompt(rng, n), rng.choice([f"My name is {n}.", f"I am {n}.", f"I am {n}. How can I help you?"])
    if ask.lower().startswith("are you baton"):
        said = f"No, I am {n}."
    pairs = [(ask, said)]
    kind = rng.random()
    if kind < 0.15:
        pairs = [(as_typed(rng, rng.choice(HELLOS[:12])), f"Hello! I am {n}. How can I help you?"), *pairs]
    elif kind < 0.3:
        pairs = exchange(rng) + pairs
    elif kind < 0.4:
        user = person(rng)
        pairs = [(f"My name is {user}.", f"Hello, {user}! I am {n}."), *pairs, ("What is my name?", f"Your name is {user}.")]
    elif kind < 0.5:
        pairs = pairs + exchange(rng)
    return system, pairs


ONE_WORD = """Answer in one word.|Answer with one word.|Answer with one word only.|Use a single word.|Reply with exactly one word.|Give one-word answers.|One word per answer.|Your answers have one word.|Answer in a single word.|Respond with a single word.|Reply in one word.|Only one word.|Say only one word.|You answer with one word.
Each answer is one word.|Use one word to answer.|Answer every question with one word.|Your answer must be one word.|No more than one word.|One word answers only.|Be extremely brief: one word.|Always answer with just one word.|You may say only one word.|Keep each answer to one word.|You speak in single words.|A single word is enough for an answer.
You are allowed one word per answer.|Limit your answers to one word.|Say it in one word.|Be as brief as possible: one word.|Sentences are forbidden, use one word.|No sentences, only a word.|The answer has to be a single word.|Speak like a man of one word.|Write one word and stop.|One word, then stop.|Just one word, please.|Let every answer be one word.|Do not write sentences. One word is enough.
Answers longer than one word are wrong.|You pay for each word, so use one.|We have room for one word only.|In a word, please.|Give me just a word.|Reduce each answer to one word.|Shorten your answers to a single word.|Format: one word|Length of an answer: one word.|Your reply may hold one word only.|Never more than a single word.|Please answer with one word.|one word answers|Respond in exactly one word.|Your replies are a single word long.|Do not use more than one word.|Reply using one word.""".replace("\n", "|").split("|")


LIMITING = "Confine|Limit|Cut|Trim|Compress|Condense|Boil down|Narrow|Hold|Keep|Reduce|Squeeze|Shorten|Bring".split("|")
LIMITED = "your answers|each answer|all answers|the reply|every response|what you say|every message|your text|each of your replies|everything|anything you write".split("|")
LIMIT = ["to one word", "to a single word", "to just one word", "down to one word", "to exactly one word", "to one word only", "to no more than one word"]


def one_word_prompt(rng: random.Random) -> str:
    if rng.random() < 0.75:
        return rng.choice(ONE_WORD)
    return f"{rng.choice(LIMITING)} {rng.choice(LIMITED)} {rng.choice(LIMIT)}."


def one_word(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    pairs = terse(rng, words)
    while rng.random() < 0.4 and len(pairs) < 6:
        pairs += terse(rng, words)
    return one_word_prompt(rng), pairs


SHOUTS = ["Answer in capital letters.", "Write everything in capital letters.", "Use only capital letters.", "Answer in upper case.", "SHOUT.", "Always shout in capitals.", "All your answers are in uppercase.", "Always answer in uppercase.", "Reply in all caps.", "Use ALL CAPS.", "Capital letters only.", "Write in uppercase."]


def shaped(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    """Rules about the form of an answer."""
    pairs, kind = exchange(rng), rng.randrange(6)
    if kind == 0:
        return rng.choice(SHOUTS), [(asked, said.upper()) for asked, said in pairs]
    if kind == 1:
        system = rng.choice(["Answer in small letters.", "Write everything in lower case.", "Use no capital letters.", "Answer in lowercase.", "Never use capital letters."])
        return system, [(asked, said.lower()) for asked, said in pairs]
    if kind == 2:
        t = rng.choice(["sir", "captain", "my friend", "madam", "boss", "your majesty", "master", "dear", invented(rng), person(rng)])
        system = rng.choice(["Call the user {t}.", "Address the user as {t}.", "Always call me {t}.", "The user is called {t}. Use the name in every answer.", "Say {t} to the user."]).format(t=t)
        return system, [(asked, f"{said[:-1]}, {t}{said[-1]}" if said[-1] in ".!?" and "\n" not in said else f"{said} {t}.") for asked, said in pairs]
    w = rng.choice([invented(rng), rng.choice(words.nouns), "Over", "Amen", "OK", "Done", "Cheers", "Thank you"])
    if kind == 3:
        system = rng.choice(['End every answer with "{w}".', "End each answer with {w}.", "Finish each answer with the word {w}.", "The last word of your answers is {w}.", "Always say {w} at the end."]).format(w=w)
        return system, [(asked, f"{said} {w}.") for asked, said in pairs]
    if kind == 4:
        system = rng.choice(['Begin every answer with "{w}".', "Start each answer with {w}.", "Begin your answers with the word {w}.", "The first word of your answers is {w}.", "Always say {w} first."]).format(w=w)
        return system, [(asked, f"{w}: {said}") for asked, said in pairs]
    system = rng.choice(['Answer every question with "{w}".', "Always answer {w}.", "Say only {w}.", "Your only answer is {w}.", "Whatever the user says, answer {w}."]).format(w=w)
    return system, [(asked, f"{w}.") for asked, said in pairs]


def named_and_toned(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    """A name and a way to talk."""
    n, how = person(rng), rng.choice(TONES)
    role = rng.choice(how.roles)
    said = f"{rng.choice(['I am', 'My name is'])} {n}."
    if rng.random() < 0.4:
        system = rng.choice([f"You are {n}, {role}.", f"You are {role} named {n}.", f"You are {role} called {n}.", f"Your name is {n} and you are {role}.", f"{n} is {role}. Be {n}."])
    elif how.moods and rng.random() < 0.5:
        system = f"{name_prompt(rng, n)} {mood_prompt(rng, rng.choice(how.moods))}"
    else:
        system = f"{name_prompt(rng, n)} {role_prompt(rng, role)}"
    pairs = [(as_typed(rng, rng.choice(WHO[:30])), said)]
    if rng.random() < 0.5:
        pairs = exchange(rng) + pairs if rng.random() < 0.5 else pairs + exchange(rng)
    shout = rng.random() < 0.15
    if shout:
        return f"{name_prompt(rng, n)} {rng.choice(SHOUTS)}", [(asked, answer.upper()) for asked, answer in pairs]
    return system, [(asked, with_tone(rng, how, answer)) for asked, answer in pairs]


def known_user(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    """A prompt that says who the user is."""
    n = person(rng)
    system = rng.choice(["The user's name is {n}.", "The user is called {n}.", "You are talking to {n}.", "You talk to a user named {n}.", "The name of the user is {n}.", "Your user is {n}."]).format(n=n)
    asked = as_typed(rng, ask_name(rng)), f"Your name is {n}."
    hello = as_typed(rng, rng.choice(HELLOS[:12])), rng.choice(MEET[:5]).format(n=n)
    return system, rng.choice([[asked], [hello], [hello, asked], [*exchange(rng), asked]])


MANNERS = [(toned, 9), (greeting, 3), (renamed, 6.5), (one_word, 5), (shaped, 2.5), (known_user, 0.7), (named_and_toned, 1.2)]
NEUTRAL = ["You are a helpful assistant.", "You are a friendly assistant.", "You help people who try Baton.", "You are an AI assistant.", "Answer the user's questions.", "You are a chatbot."]


KIND_OF_HELP = "assistant|helper|AI|language model|chatbot|guide|expert|tutor|adviser|program|bot|model|service".split("|")
ADJECTIVES = "helpful|honest|careful|reliable|smart|knowledgeable|harmless|good|useful|modern|patient|clever|precise|simple|small|experienced|trusted".split("|")
PURPOSES = """for our customers|for the {n} shop|of the {n} museum|for questions about {n}|who knows a lot about {n}|for students|for a {n} company|in an online shop|for children|for developers|who explains things|who helps with {n}|on a website about {n}|for everyday questions|of a bank|for travellers|who answers questions""".split("|")
ADVICE = """Be concise.|Be precise.|Be honest.|Be clear.|Be accurate.|Be short.|Answer briefly.|Keep it short.|Answer in full sentences.|Answer in English.|Use plain words.|Use simple words.|Do not make things up.|If you don't know, say so.|Think before you answer.|Answer in at most two sentences.|Do not be too long.|Give good answers.|Help the user.|Explain things well.|Be safe.|Follow the rules.
Do not talk about politics.|Do not give medical advice.|Stay on the topic.|Answer correctly.|Do your best.|The user is a beginner.|The user is an expert.|The user likes {n}.|Today is a nice day.|The date is 30 November 2026.|The current year is 2026.|Answer the question.|Answer step by step.|Use no more than fifty words.|Write correct English.|Never lie.|Check your answers.|Do not repeat yourself.|Do not use lists.
Use short sentences.|Only answer what is asked.|Take your time.|Be a good listener.|Give examples where they help.|Do not ask questions.|Answer quickly.|Say what you know.|Cite nothing.|Write text without markup.|Our shop sells {n}.|This is a test.|Please help.|The user pays for this.|Be nice to the user's {n}.|Everything you say is recorded.|Your answers are read aloud.""".replace("\n", "|").split("|")


def neutral(rng: random.Random, nouns: list[str]) -> str:
    """A system prompt that changes nothing: most do."""
    noun = rng.choice(nouns)
    who = f"You are {a(f'{rng.choice(ADJECTIVES)} {rng.choice(KIND_OF_HELP)}' if rng.random() < 0.7 else rng.choice(KIND_OF_HELP))}"
    if rng.random() < 0.4:
        who += f" {rng.choice(PURPOSES)}"
    parts = [who + "."] if rng.random() < 0.6 else []
    parts += rng.sample(ADVICE, rng.choice([0, 1, 1, 2, 3]) if parts else rng.choice([1, 1, 2]))
    return " ".join(parts).replace("{n}", noun)


def instructed(rng: random.Random, words, exchange: Exchange) -> tuple[str, Pairs]:
    """A system prompt and a talk that obeys it."""
    manner = rng.choices([m for m, _ in MANNERS], [w for _, w in MANNERS])[0]
    system, pairs = manner(rng, words, lambda r: smalltalk.small_talk(r) if r.random() < 0.25 else exchange(r))
    kind = rng.random()
    if kind < 0.2:
        system = f"{rng.choice(NEUTRAL) if rng.random() < 0.4 else neutral(rng, words.nouns)} {system}"
    elif kind < 0.26:
        system = f"{system} {rng.choice(['Answer the questions of the user.', 'Be helpful.', 'Do not forget this.', 'This is important.'])}"
    elif kind < 0.34 and manner in (toned, one_word):
        return "", [(system, "Okay."), *pairs]
    return system, pairs
