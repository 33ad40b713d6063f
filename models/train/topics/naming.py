"""How the user says who they are, in thousands of ways, and asks for it later."""

from __future__ import annotations

import random

from .names import person, town
from .text import a
from .things import ADJECTIVES, ASIDES, NEAR, PERSONS, Things
from .verbs import past, third

TOLD_NAME = """My name is {n}.|My name is {n}.|I am {n}.|I'm {n}.|Call me {n}.|Please call me {n}.|You can call me {n}.|The name is {n}.|{n} here.|This is {n}.|It's {n}.|My friends call me {n}.
They call me {n}.|People call me {n}.|I go by {n}.|Hi, I'm {n}.|Hello, my name is {n}.|Hey, {n} here.|My name's {n}.|I am called {n}.|You are talking to {n}.|My first name is {n}.|My nickname is {n}.
{n} is my name.|Let me introduce myself: I am {n}.|Hi! My name is {n}.|Hello. I am {n}.|Good morning, I'm {n}.|Hi there, {n} speaking.|My parents named me {n}.|Hello, you can call me {n}.|i'm {n}|my name is {n}
My passport says {n}.|I sign my letters as {n}.|My family calls me {n}.|My colleagues call me {n}.|At work I am {n}.|Everybody calls me {n}.|The world knows me as {n}.|My real name is {n}.|My full name is {n}.|{n}, that's me.|{n} is who I am.|I respond to the name {n}.|I was christened {n}.|My user name is {n}.|It is {n} who is writing to you.
They named me {n}.|The name my parents chose is {n}.|At home I am called {n}.|I am known as {n}.|I am usually called {n}.|{n} is the name I use.|Write down my name: {n}.|You may call me {n}.|Just call me {n}.|I like to be called {n}.|I want you to call me {n}.|On my door it says {n}.|name: {n}|User: {n}
My name is {n}, nice to meet you.|My name is {n}, by the way.|Just so you know, I am {n}.|I was named {n}.|I use the name {n}.|Remember my name: {n}.|My name is {n}. Please remember it.""".replace("\n", "|").split("|")
NAMERS = """My parents|My father|My grandfather|My grandmother|My teacher|My friends|My aunt|People here|The neighbors|The whole village|My wife|My husband|The priest|My team|My boss|Everybody|Everyone|They|My children|My brother|My sister|The others|My classmates|Some people|All my friends|The people at work|My family|Most people|Nearly everybody
Half the town|The kids|My buddies|My pals|The old ladies|My neighbors|My students|My dad|My mom|All of us|Those who know me|Strangers|The villagers|My mother-in-law|My cousins|The whole street|The crew|My doctor|The postman|My trainer""".replace("\n", "|").split("|")
NAMING = """named me {n}|nicknamed me {n}|christened me {n}|baptized me {n}|dubbed me {n}|gave me the name {n}|always called me {n}|used to call me {n}|once named me {n}|decided to call me {n}|wanted to call me {n}|chose to name me {n}|have always called me {n}|introduced me as {n}|greet me as {n}|addressed me as {n}|call me {n}|call me {n}|say {n} to me
say {n} when they mean me|yell {n} when they want me|cry {n} when they see me|write {n} on my letters|know me as {n}|know me by the name {n}|think of me as {n}|speak of me as {n}|ask for {n} when they look for me|gave me {n} as a name|have {n} as a name for me|refer to me as {n}|use {n} for me|call out {n} when I am late|would call me {n}|registered me as {n}|remember me as {n}""".replace("\n", "|").split("|")
PAPERS = "passport|door|ticket|ID card|name tag|mailbox|driving license|diploma|jersey|desk|birth certificate|profile|contract|suitcase|library card|letter|form|invitation|cup|desk sign|bracelet|screen|email|business card|certificate|locker|chair|tag|envelope|school book|helmet".split("|")
SHOWING = ["says {n}", "shows {n}", "reads {n}", "has {n} on it", "has the name {n}", "carries the name {n}", "is made out to {n}", "belongs to {n}", "calls me {n}", "names me as {n}", "bears the name {n}", "tells you that I am {n}"]
FIRST = """{n} is what my friends call me|{n} is what everybody calls me|{n} is how I am called|{n} is the name that I use|{n} is the name I was given|{n} is my first name|{n} is how you can call me|{n} is me|{n} would like to talk to you|{n} is writing to you|{n} is my real name|{n}, nice to meet you|{n} speaking|{n} is what you may call me|{n} is the one who writes this
{n} is the name on my passport|{n} is how my family calls me|{n}, your user|{n} is here|{n} says hello|{n} is back|{n}, a friend|{n} is talking to you now|{n} from {town} here|{n} from the {noun} here|{n} wants to ask something|{n} is the person in front of you|{n} it is|{n} reporting|{n} on duty|{n} ready for work|{n} at your service|{n} from the first floor|{n} from next door here|{n} is on the line|{n} has joined|{n}, present|{n}, that is my name|{n} is what I am called|{n} is the name""".replace("\n", "|").split("|")
MIDDLE = """I react to {n}|I listen to the name {n}|I reply to {n}|I use {n} as my name|As my name I chose {n}|My call sign is {n}|The right name for me is {n}|Let us say that my name is {n}|The name given to me is {n}|When you talk to me, say {n}|You are speaking with {n}|If you need me, call for {n}|Everything here is asked by {n}|This is a message from {n}|These words come from {n}|Here is {n}|Here comes {n}
Write down that I am {n}|Write {n} if they ask for my name|Enter me as {n}|List me as {n}|Save my name as {n}|Note my name, it is {n}|From birth I have been {n}|All my life I have been called {n}|For years I have been {n}|Ever since school my name has been {n}|My name has always been {n}|It would be kind to call me {n}|I would like you to call me {n}|I'd love to be called {n}|I'd be glad if you said {n}|You might call me {n}
You can just say {n}|Feel free to call me {n}|Simply call me {n}|Address me with {n}|Talk to me as {n}|Use {n} when you talk to me|Should you ask for my name, it is {n}|If anybody asks, I am {n}|If you want to know, my name is {n}|I had better introduce myself, I am {n}|Allow me to introduce myself, {n}|May I introduce myself? I am {n}|I am the famous {n}|I am your user {n}|I am a {noun} named {n}|I am a {noun} called {n}|Yours, {n}
Best wishes from {n}|Regards, {n}|Hello from {n}|A warm hello from {n}|Love from {n}|I believe we have not met, I am {n}|We have met, I am {n}|It is {n} again|It was {n} who wrote to you|Who I am? {n}|My name? {n}|Name of the user is {n}|Username {n}|The user is {n}|I happen to be {n}|I remain {n}|I became {n} when I was born|Ask anyone, I am {n}|The letters of my name are {n}|Believe it or not, my name is {n}
Sign me up as {n}|Put {n} down as my name|Put me on the list as {n}|Book it for {n}|Count me in as {n}|Tick off {n}, that is me|Greeting you: {n}|Many greetings, {n}|Kind regards from your user {n}|A greeting from {n}|This text comes from {n}|This letter comes from {n}, your user|This question comes from {n}
One says {n} to me|Say {n} to me|You could say {n}|You can say {n} and I will listen|It would be good if you named me {n}|It would be great if you said {n} to me|How nice if you called me {n}|They shout {n} when lunch is ready|When they need me, they call {n}|Since I was born I have been {n}|Since school my name has been {n}|From my birth on my name was {n}|I have been named {n} since my first day""".replace("\n", "|").split("|")
ENDS = [".", ".", ".", ".", ".", ".", "!", ", and I need your help.", ", and I have a question.", ", and that is me.", ", so call me that.", ", for what it is worth.", ", and now to my question.", ", please remember it.", "", " today.", " by the way.", ", hello.", ", that's who I am.", ", okay?"]


SPEAKERS = "The other {role}s|The people {near}|The children {near}|The {role}s {near}|Both my {role}s|All my {role}s|Most {role}s|Two of my {role}s|The {role}s of {town}|The {noun} people|Old {role}s|The men {near}|The women {near}".split("|")
SPEAKING = """call me {n}|call me {n}|know me as {n}|greet me as {n}|introduce me as {n}|address me as {n}|refer to me as {n}|announce me as {n}|list me as {n}|remember me as {n}|say {n} {when}|shout {n} {when}|cry {n} {when}|yell {n} {when}|whisper {n} {when}|sing {n} {when}|bark {n} {when}|scream {n} {when}
roar {n} {when}|mumble {n} {when}|use {n} {when}|type {n} {when}|say {n} to me|look for {n} and find me|think that {n} suits me|welcome me as {n}|describe me as {n}|mention me as {n}|invite me as {n}|pay me as {n}|thank me as {n}|file me under {n}|start every letter to me with {n}|spell my name {n}|pronounce my name {n}|turn to me and say {n}
point at me and say {n}|write {n} on my {thing}|print {n} on my {thing}|paint {n} on my {thing}|read {n} from my {thing}|put {n} next to my photo""".replace("\n", "|").split("|")
WHEN = "when they want me|when dinner is ready|when it is my turn|whenever we meet|if I am late|and mean me|and I answer|and I turn around|and I come running|across the {noun}|over the {noun}|at me|after me|in my ear|on the phone|every morning|to get my attention|when I enter|through the {noun}|, which is my name|, and that is me|, meaning me".split("|")
WRITTEN = """{n} is {how} on my {thing}|There is {n} on my {thing}|On my {thing} it says {n}|On my {thing} you can read {n}|On my {thing} {n} is {how}|My {thing} has {n} {how} on it|The {thing} with {n} on it is mine|My {thing} is marked {n}|They have {how} {n} on my {thing}|My {role} has {how} {n} on my {thing}|Somebody has {how} {n} on my {thing}
If you find a {thing} marked {n}, it is mine|I have {n} {how} on my {thing}|You can see {n} on my {thing}|I have signed my {thing} with {n}|The {thing} shows {n}, that is me|Look at my {thing}, it says {n}""".replace("\n", "|").split("|")
HOW = "written|printed|painted|carved|stitched|engraved|scribbled|typed|stamped|burned|scratched|drawn|spelled|tattooed|embroidered".split("|")
ROLE = """I am {n}, {the} {role}|I'm {n}, {the} {role}|I am {the} {role}, {n}|I am {the} {role} {n}|This is {n}, {the} {role}|{n}, {the} {role}|{n}, {the} {role}, is here|It is {n}, {the} {role}|{n} is {the} {role} who writes to you|Here is {n}, {the} {role}|It's {the} {role}, {n}|Hello from {n}, {the} {role}
{the} {role} {n} greets you|I am {n} and I work as {the} {role}|I am {n}, {the} {role} of {town}|I am {n}, {the} {role} {near}|My name is {n} and I am {the} {role}|They made me {the} {role}, I am {n}|It is {the} {role} again, {n}|You know me, {n}, {the} {role}""".replace("\n", "|").split("|")
DOING = """{n} {ing} {prep} the {noun}|{n} {ing} {prep} the {noun}|{n} {ing} {prep} {town}|{n} {ing} {prep} you|{n} {ing} again|{n} {ing} as ever|{n}, {ing} {prep} the {noun}|Here is {n} {ing} {prep} the {noun}|This is {n} {ing} {prep} {town}|It's {n} {ing} {prep} the {noun}|You hear {n} {ing}|{n} from {noun}
{n} from the {noun} {noun2}|{n} of {town}|{n} of the {noun}|{n} in {town}|{n} at the {noun}|{n} over at the {noun}|{hi} {n} from the {noun} {noun2}|{hi} {n} from {noun}|{hi} {n} here|{hi} {n} from {town}|{hi} this is {n} from {noun}|{hi} it's {n} at the {noun}|{hi} {n} again|{hi} {n} {ing} {prep} the {noun}|{hi} here is {n}""".replace("\n", "|").split("|")
HI = "Hi,|Hello,|Hey,|Howdy,|Hi there,|Good day,|Good morning,|Good afternoon,|Good evening,|Ahoy,|Hey there,|Hello again,|Greetings,|Morning,|Yes,|Well,|So,|Knock knock,|Ring ring,|Dear model,|Surprise,".split(",|")
WISHING = """{n} {sends} you {gift}|{n} {sends} you {gift}|{n} has {gift} for you|{n} comes with {gift}|{n} thanks you for {gift}|{n} asks you for {gift}|{n} needs {gift}|{n} wants {gift}|{n} would like {gift}|{n} hopes for {gift}|{n} is looking for {gift}|{n} is waiting for {gift}|{n} is glad to see you|{n} is happy to be back
{n} is ready|{n} has arrived|{n} has a question|{n} is online|{n} just logged in|{n} is your user today|{n} is at the keyboard|{n} waves at you|{n} is not afraid of you|{n} likes to talk to you|{n} is new here|{n} can hear you|{n} speaks to you|{n} is all yours""".replace("\n", "|").split("|")
SENDS, GIFTS = "sends brings offers wishes gives hands".split(), "greetings|best wishes|a warm hello|a good day|love|a {noun}|some help|an answer|good advice|the {noun}|a kind word|news from {town}|many thanks|a quick answer|your {noun}|a question|two questions|a smile".split("|")
TALKING = """are talking to|are speaking to|are speaking with|are dealing with|are helping|are listening to|have met|hear|are being asked by|are reading a message from|are looking at|have a message from|work for|are in a talk with|are in touch with|are facing|have been found by|are in the company of|are visited by|are connected with""".split("|")
CERTAIN = "|||||||a certain |the one and only |nobody but |someone called |somebody named |a {noun} named |a person called |the famous |your friend |my humble self, |a human called |one ".split("|")
SOMEBODY = "person|user|one|human|guest|customer|writer|author|caller|visitor|stranger|man|woman|client|sender|speaker".split("|")
HERE = "who writes this|who wrote this|behind this message|who asks you|in front of you|at the keyboard|you are talking to|on this side|before you|who sent this|who needs your help|in this talk|behind the screen|you are helping|at this desk|who greets you".split("|")
NAME_IS = """My {kind}name is {n}|My {kind}name{which}is {n}|{aside}, my {kind}name is {n}|My {kind}name, {aside}, is {n}|My {kind}name is {n}, {aside}|{n}, {aside}, is my {kind}name|{n} is my {kind}name|My {kind}name would be {n}|My {kind}name remains {n}|My {kind}name has become {n}|My {kind}name will be {n}|For my {kind}name, use {n}
The name that I {bear} is {n}|The name I {bear} is {n}|{n} is the name that I {bear}|I {bear} the name {n}|I {bear} the name of {n}|Name and {noun}: {n}, {noun2}|The name you want is {n}|The name you need is {n}|The {noun} needs my name, it is {n}|My mother picked my name: {n}|I love my name, {n}|I am proud of my name, {n}|I chose my name myself, {n}""".replace("\n", "|").split("|")
NAME_KINDS = ["", "", "", "first ", "full ", "real ", "proper ", "official ", "current ", "only ", "new ", "own ", "legal ", "whole ", "usual ", "chosen "]
BEAR = "bear|have|carry|use|go by|got|was given|took|prefer|like|received|chose|inherited|wear".split("|")
CIRCLES = """At work|At school|In my family|Among friends|Online|On stage|In the club|In the office|At the gym|To my friends|To most people|To my {role}|To the {role}s|In {town}|In the {noun} club|In my passport|In the phone book|On the radio|In public|At the {noun}|On the {noun} list|For my {role}|For the {role}s|In every letter|In my diary|On the team
As a child|As a student|As a boy|As a girl|As {arole}|Since school|Since my wedding|Since {year}|Before {year}|In {year}|For ten years|For most of my life|From the first day on|In my youth|Back in {town}|Back home|On Sundays|During the week|These days|At the moment""".replace("\n", "|").split("|")
BEING = "I am {n}|I am called {n}|I am known as {n}|I am just {n}|I am only {n}|I was {n}|I was called {n}|I was named {n}|I was known as {n}|I have been {n}|I go by {n}|I use {n}|they say {n} to me|everybody says {n} to me|my name is {n}|my name was {n}|it is {n} for me|I have the name {n}|people see me as {n}".split("|")
STILL = ["", "", "", ", and still am", ", and it stuck", ", and that is still so", ", and I like it", ", and nothing else", ", never anything else"]
DO, IT, UNDER = "Sign|Book|Save|Enter|File|List|Write|Register|Note|Record|Log|Mark|Reserve|Order|Pack|Print|Store|Label|Address|Send|Keep|Announce|Bill".split("|"), "it|this|me|that|the {thing}|my {thing}|everything|all of it|my order".split("|"), "under|as from|for|under the name|in the name of|in the name|with the name|to the name of".split("|")
INTRODUCE = "May I|Let me|I would like to|I want to|I am here to|I had better|Allow me to|It is time to|I forgot to|I would love to|I have to|Please let me|I wish to|Time to|First I will|Before anything else I will|I never got to".split("|")
MYSELF = "introduce myself: {n}|introduce myself, {n}|introduce myself. I am {n}|introduce myself. My name is {n}|introduce myself as {n}|introduce myself properly: {n}|say who I am: {n}|say who I am. I am {n}|tell you my name: {n}|tell you my name. It is {n}|tell you that I am {n}|tell you that my name is {n}|mention that I am {n}|give you my name, {n}|say that I am {n}|begin with my name: {n}|state my name: {n}|state my name. It is {n}".split("|")
NOT_HIM = """My name is {n}, not {m}|Not {m}, {n}|I am not {m}, I am {n}|People mistake me for {m}, but I am {n}|I look like {m}, but I am {n}|I used to be called {m}, but now I am {n}|My name was {m} once, but now it is {n}|I was {m} before the wedding, today I am {n}|{m} is my {role}, I am {n}|{m} is not here, this is {n}|I am {n}, and this is my {role} {m}
I am {n}, and my {role} is called {m}|I am {n} and live with my {role} {m}|My {role} {m} calls me {n}|My {role} is {m}, and I am {n}|My {role} {m} told me about you, I am {n}|{m} told me about you. My name is {n}|{m} says hello, and so do I, {n}|I came with {m}, my name is {n}|{m} could not come, so you get {n}|You have met {m}, and I am {n}|Yesterday you met {m}, today you meet {n}
I am {n}, {m} is my {role}|{m} named me {n}|I am {n}, named after my {role} {m}|I am {n}, a friend of {m}|{m} sent me, I am {n}|Greet {m} from me, {n}|I am {n}, the {role} of {m}|I work with {m}, my own name is {n}|If {m} asks, I am {n}|{m} knows me as {n}|{m} is late, but {n} is here|This is {n}, {m} will come later|My {role} {m} is here with me, {n}""".replace("\n", "|").split("|")
SIGNED = """{wish}. Yours, {n}|{wish}. Your {n}|{wish}. - {n}|{wish}. Best, {n}|{wish}. Regards, {n}|{wish}. Love, {n}|{wish}, {n}|{wish}. Signed, {n}|{wish}. Sincerely, {n}|{wish}. This was {n}|{wish}. I am {n}|{wish}. It is me, {n}|It's me, {n}|It is I, {n}|It's me again, {n}|Me again: {n}|Guess who: {n}|I, {n}, {wants}|I, {n}, {wants}|I am {n} and I {want}|I'm {n}, I {want}
We are a {noun} club and I am {n}|I am in {town} and my name is {n}|I have a {thing} and my name is {n}|I lost my {thing}, I am {n}|I {want}, my name is {n}|I am {n}, age {age}|{n}, {age}|{n}, {age}, from {town}|I am {arole} and my name is {n}|Name: {n}. Town: {town}|Name: {n}, job: {role}|I'm {n} and my {thing} is broken""".replace("\n", "|").split("|")
WISHES = "Can you help me?|I need help|Thank you for your help|I hope you are well|Have a good day|I have a question|Nice to be here|Please answer soon|I look forward to your answer|Let us talk|Thanks in advance|Good to meet you|I love your {noun}|My {thing} is broken|I am in {town}".split("|")
WANTS = "have a question|need some help|am new here|would like to learn something|am back|want to talk|declare that I am ready|promise to be kind|look for a {thing}|come from {town}|own a {thing}|am {arole}|like {noun}s|write to you from {town}|need a {thing}".split("|")
TITLES = "Mr. Mrs. Ms. Miss Dr. Doctor Professor Captain Sir Lady Sister Father Uncle Aunt Mister Madam Sergeant Brother Chef Coach".split()
GRAMMARS = [(ROLE, 5), (WRITTEN, 4), (DOING, 6), (WISHING, 4), (NAME_IS, 7), (NOT_HIM, 6), (SIGNED, 6), (FIRST, 6), (MIDDLE, 8)]


def told_name(rng: random.Random, n: str, things: Things) -> str:
    """One of millions of ways to say one's name."""
    if rng.random() < 0.22:
        return rng.choice(TOLD_NAME).format(n=n)
    n = f"{rng.choice(TITLES)} {n}" if rng.random() < 0.06 else n
    text = told(rng, things).format(**slots(rng, n, things))
    text = text[0].upper() + text[1:] if text[0] != n[0] else text
    return text if text[-1] in ".!?" else text + rng.choice(ENDS)


def told(rng: random.Random, things: Things) -> str:
    """The form in which a name is told, with slots."""
    kind = rng.random()
    if kind < 0.10:
        return f"{rng.choice(NAMERS)} {rng.choice(NAMING)}"
    if kind < 0.14:
        return f"My {rng.choice(PAPERS)} {rng.choice(SHOWING)}"
    if kind < 0.28:
        return spoken(rng, things)
    if kind < 0.33:
        return f"You {rng.choice(TALKING)} {rng.choice(CERTAIN)}{{n}}"
    if kind < 0.38:
        who = f"the {rng.choice(SOMEBODY)} {rng.choice(HERE)}"
        return rng.choice([f"{who} is {{n}}", f"{who} is called {{n}}", f"{who} is named {{n}}", f"{{n}} is {who}", f"{{n}} is the name of {who}"])
    if kind < 0.45:
        return f"{rng.choice(CIRCLES)}{rng.choice([' ', ' ', ', '])}{rng.choice(BEING)}{rng.choice(STILL)}"
    if kind < 0.48:
        return f"{rng.choice(DO)} {rng.choice(IT)} {rng.choice(UNDER)} {{n}}"
    if kind < 0.52:
        return f"{rng.choice(INTRODUCE)} {rng.choice(MYSELF)}"
    forms = rng.choices([forms for forms, _ in GRAMMARS], [share for _, share in GRAMMARS])[0]
    return rng.choice(forms)


def spoken(rng: random.Random, things: Things) -> str:
    """Who calls the user so, and how."""
    verb, _, rest = rng.choice(SPEAKING).partition(" ")
    tense = rng.choice(["now", "now", "once", "soon", "always"])
    form = {"now": verb, "once": past(verb), "soon": f"will {verb}", "always": f"always {verb}"}
    if rng.random() < 0.4:
        return f"{rng.choice(SPEAKERS)} {form[tense]} {rest}"
    form |= {"now": third(verb), "always": f"always {third(verb)}"}
    return f"My {{role}}{things.which(rng) if rng.random() < 0.3 else ' '}{form[tense]} {rest}"


def slots(rng: random.Random, n: str, things: Things) -> dict[str, str]:
    """What a form may ask for."""
    noun, noun2, place = things.noun(rng), things.noun(rng), town(rng)
    fill = {"noun": noun, "noun2": noun2, "town": place, "thing": things.thing(rng), "role": (role := things.someone(rng)), "arole": a(role), "near": rng.choice(NEAR), "year": str(rng.randint(1950, 2025))}
    pick = lambda forms: rng.choice(forms).format(**fill)  # noqa: E731
    hi, wish, want = rng.choice(HI), pick(WISHES), pick(WANTS)
    return fill | {
        "n": n, "m": person(rng), "when": pick(WHEN), "how": rng.choice(HOW), "the": rng.choice(["the", "the", "your", "the " + rng.choice(ADJECTIVES), "your " + rng.choice(ADJECTIVES)]), "ing": rng.choice(things.gerunds), "prep": rng.choice(PREPOSITIONS),
        "hi": hi + rng.choice([",", ",", "!"]), "sends": rng.choice(SENDS), "gift": pick(GIFTS), "kind": rng.choice(NAME_KINDS), "which": things.which(rng), "aside": rng.choice(ASIDES), "bear": rng.choice(BEAR), "wish": wish.rstrip("?"), "want": want, "wants": want, "age": str(rng.randint(6, 99))}


PREPOSITIONS = "from for in at with on to under behind near through over about of without".split()


ASK_NAME = """What is my name?|What is my name?|Do you remember my name?|What's my name?|Who am I?|What am I called?|Can you tell me my name?|Tell me my name.|Say my name.|Do you know my name?|What did I say my name was?
How am I called?|Remind me of my name.|What was my name again?|What is my name again?|Do you still know my name?|Do you know who I am?|So what is my name?|What do people call me?|My name is?|Please repeat my name.|whats my name
What name did I tell you?|Have I told you my name?|Can you remember what I am called?|Did you catch my name?|What should you call me?|What is the name that I gave you?|Which name did I say?|Which name did I use?|What name did I state?|Which name have I told you?|With which name did I come to you?|What did I call myself?|How did I name myself?|What did I say I am called?|What name was it that I told you?|Do you have my name?|Give my name.|Repeat my name.|Please say my name again.|What name do you have for me?
How would you call me?|Do you remember what I told you about my name?|Could you remind me what I am called?|Could you tell me who I am?|May I hear my name?|Can I hear you say my name?|Who introduced himself to you?|I told you my name. What is it?|How did I call myself?|By what name do you know me?|Which name is mine?|What name do I have?|Whom are you talking to?|How do you address me?|Who is writing to you?|Who is talking to you?|What was I called again?|Give me my name.|Let me hear my name.|Can you say my name?|Could you repeat my name?
Use my name.|What is the name of the user?|Can you call me by my name?|Under which name do you know me?|What did I tell you my name is?|Which name did I mention?|Did I mention my name?|What do my friends call me?|How do people address me?|How was I named?|What was the name I told you?|What name have I told you?|Who did I say I am?|As what did I present myself?
Whose questions do you answer?|Tell me who I am.|Say who I am.|I forgot my own name. What is it?|By the way, who am I?|Do you remember who I am?|How did I say I am called?
Which name did you get from me?|Which name did I bring?|Which name did I hand to you?|Which name did I tell?|What name did I give you?|What name did I give?|How did I introduce me?|In what way did I introduce myself?|As whom did I introduce myself?|What was the name of me?|What was my own name?|What was it that people call me?|What is it that my friends say to me?|What is it that you should call me?|Once more: what am I called?|Tell me once more my name.|Please tell me again what I am called.|Can you tell what my name is?|Can you still say my name?|Do you still know who I am?""".replace("\n", "|").split("|")
NAME_WRAPS = """Can you tell me {c}?|Could you tell me {c}?|Tell me {c}.|Please tell me {c}.|Do you remember {c}?|Do you still know {c}?|I wonder {c}.|Say {c}.|Do you know {c}?|Can you remember {c}?|I forgot {c}.|Remind me {c}.|I want to hear {c}.|Will you tell me {c}?|Please say {c}.|Let me know {c}.|I would like to know {c}.|Have you noted {c}?|Are you sure {c}?
Show me that you know {c}.|Try to remember {c}.|Did you forget {c}?|Have you forgotten {c}?|Now tell me {c}.|Quick: {c}?|And {c}?|Please repeat {c}.|I hope you know {c}.|You surely know {c}.|Test: {c}?|Just tell me {c}.|Would you say {c}?|Might you know {c}?|I ask you {c}.|Finally, {c}?|Once again, {c}?""".replace("\n", "|").split("|")
NAME_CORES = "what my name is|who I am|what I am called|how I am called|what people call me|what you should call me|my name|the name I told you|the name that I gave to you|which name I have|who you are talking to|how I named myself|what I said my name is|what I told you to call me|my own name|what the others call me|the name of your user|what name I gave|by which name I go|how I call myself|what name is mine|how to address me".split("|")


RECALLING = """Do you remember {c}?|Do you still remember {c}?|Can you recall {c}?|Try to recall {c}.|Have you kept in mind {c}?|Did you keep {c} in mind?|I am curious whether you know {c}.|Let us see if you know {c}.|Check: {c}?|Question: {c}?|Small test: {c}?|Would you mind telling me {c}?|Would you be so kind as to say {c}?|I should like to hear {c}.|Is it clear to you {c}?|Give me back {c}.
Tell my {role} {c}.|My {role} asks {c}.|My {role} wants to know {c}.|The {role} wants to hear {c}.|Somebody asks {c}.|Do you have any idea {c}?|Write down {c}.|Spell out {c}.|Type {c}.|Look up {c}.|Look back and tell me {c}.|Think back: {c}?|After all this, do you know {c}?|One more time: {c}?|Before I go, tell me {c}.|Back to me: {c}?|Now for something else: {c}?|Last question: {c}?""".replace("\n", "|").split("|")
MY_NAME = """what I am named|what my first name is|what name I use|what name I go by|what name I told you|what name you know me by|under what name you know me|under which name I came|under which name I was introduced|what you call me|what you would call me|what to call me|what I want to be called|what others call me|what my friends say to me|how my friends call me|who I really am
who I said I am|who I claimed to be|who wrote to you|who is writing|who is asking|who asks you this|who you are speaking to|who you have in front of you|who your user is|the name of the one who asks|the name of the person who writes|how you should greet me|how to greet me|whose messages you read|how I presented myself|what I told you about my name|which name belongs to me""".replace("\n", "|").split("|")
DID_NAME = "What name did I {tell}{then}?|Which name did I {tell}{then}?|What did I {tell} as my name{then}?|What name was it that I {told}{then}?|What was the name that I {told}{then}?|What is the name I {told}{then}?|Which name is the one I {told}{then}?|What did I {tell} my name is{then}?|What name did I tell you{then}?|What did I tell you about my name{then}?|Which name have you heard{then}?".split("|")
TELLING = "say said|use used|mention mentioned|state stated|say said|write wrote|claim claimed|choose chose|leave left|type typed".split("|")
THEN = ["", "", "", " earlier", " before", " at the start", " a while ago", " at first", " in the beginning", " when I came", " just now"]
BY, DO_YOU = ["Under", "By", "With", "Using"], "do you know me|did I come|am I known|am I known here|was I introduced|do people know me|did I sign|can you greet me|would you greet me|would you call me|do my friends know me|did I write to you|did I enter|do you have me on your list|should I be greeted|may I be addressed".split("|")
WHO_IS = "Who {am}{now}?|So who {am}{now}?|And who {am}{now}?|Tell me, who {am}{now}?|Do you remember who I am{now}?|Well, who {am}{now}?".split("|")
AM = "am I|is it|is it that writes|is writing to you|is your user|is asking you this|is this|do you talk to|are you speaking with|have you been talking to|are you helping|did I say I am|do you think I am|wrote to you|has been writing to you|told you a name".split("|")
NOW = ["", "", "", "", " now", " again", " really", " here", " today", " then"]
SHORTLY = "And my name?|And me, who am I?|My name, please.|My name, do you have it?|Name?|My own name?|And what is my name?|So, my name?|Now my name.|Your user's name?|The name of your user?|Remember who I am?|Remember me?|Still know my name?|You know my name, right?|You do know my name, don't you?|I am who?|I am called what?|And I am?|My name was?|My name is what?|You may call me what?".split("|")


def ask_name(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(ASK_NAME)
    if kind < 0.75:
        form = rng.choice(NAME_WRAPS if rng.random() < 0.5 else RECALLING)
        return form.format(c=rng.choice(NAME_CORES if rng.random() < 0.5 else MY_NAME), role=rng.choice(PERSONS))
    if kind < 0.83:
        tell, said = rng.choice(TELLING).split()
        return rng.choice(DID_NAME).format(tell=tell, told=said, then=rng.choice(THEN))
    if kind < 0.88:
        return f"{rng.choice(BY)} {rng.choice(['what', 'which'])} name {rng.choice(DO_YOU)}?"
    return rng.choice(WHO_IS).format(am=rng.choice(AM), now=rng.choice(NOW)) if kind < 0.94 else rng.choice(SHORTLY)


MEET = ["Hello, {n}! How can I help you?", "Nice to meet you, {n}.", "Hi, {n}!", "Hello, {n}.", "Welcome, {n}!", "Nice to meet you, {n}! What would you like to know?", "Hello {n}, it is nice to meet you.", "It is a pleasure to meet you, {n}."]
