"""Hand-written word lists: categories with their members, words every lexicon should have, names and places.

A category is `(WordNet roots, members)`; the roots pick the right sense of a word such as "orange".
"""

CATEGORIES: dict[str, tuple[list[str], list[str]]] = {
    "animal": (["animal"], "dog cat horse cow pig sheep goat lion tiger elephant giraffe zebra bear wolf fox rabbit mouse rat squirrel deer moose monkey gorilla kangaroo koala camel donkey hippopotamus rhinoceros leopard cheetah otter beaver badger hedgehog bat seal walrus dolphin whale".split()),
    "bird": (["bird"], "eagle hawk owl sparrow robin crow raven swan duck goose chicken turkey parrot penguin ostrich pigeon dove swallow stork heron flamingo peacock gull woodpecker".split()),
    "fish": (["fish", "animal"], "salmon trout tuna cod shark herring carp pike eel sardine perch mackerel".split()),
    "insect": (["insect"], "ant bee wasp butterfly moth beetle fly mosquito grasshopper cricket dragonfly ladybug termite cockroach".split()),
    "reptile": (["reptile"], "snake lizard turtle crocodile alligator tortoise chameleon gecko".split()),
    "fruit": (["edible_fruit", "fruit"], "apple banana orange pear grape cherry peach plum lemon lime melon mango pineapple strawberry raspberry blueberry apricot fig kiwi papaya".split()),
    "vegetable": (["vegetable", "vegetable_oil", "plant"], "carrot potato onion cabbage lettuce spinach cucumber broccoli cauliflower pea bean celery radish beet pumpkin leek asparagus turnip".split()),
    "tree": (["tree"], "oak pine maple birch willow fir elm beech ash cedar poplar spruce palm".split()),
    "flower": (["flower", "plant"], "rose tulip daisy lily sunflower orchid daffodil violet carnation iris poppy marigold dandelion".split()),
    "musical instrument": (["musical_instrument"], "violin piano guitar flute trumpet drum harp cello clarinet oboe trombone saxophone organ accordion banjo viola bassoon tuba harmonica lute".split()),
    "vehicle": (["vehicle", "conveyance"], "car bus truck bicycle motorcycle train ship boat airplane helicopter tram van tractor scooter wagon canoe ferry rocket taxi sled".split()),
    "tool": (["tool", "implement", "device"], "hammer saw screwdriver wrench drill chisel shovel rake axe pliers file knife scissors spade hoe".split()),
    "piece of furniture": (["furniture"], "table chair bed desk sofa bookcase cabinet wardrobe bench stool cupboard armchair cradle".split()),
    "piece of clothing": (["clothing", "covering", "garment"], "shirt coat hat glove sock shoe dress skirt jacket sweater scarf trousers boot belt cap blouse".split()),
    "building": (["building", "structure"], "house school church hospital hotel library castle palace barn museum theater factory temple tower cottage".split()),
    "food": (["food", "foodstuff"], "bread cheese butter rice soup cake pasta sandwich salad honey sugar egg meat sausage pie chocolate pizza yogurt biscuit".split()),
    "drink": (["beverage", "food"], "water milk tea coffee juice lemonade cocoa cider".split()),
    "color": (["color"], "red blue green yellow orange purple pink brown black white gray violet turquoise".split()),
    "sport": (["sport", "diversion"], "football tennis basketball baseball hockey swimming skiing golf rugby cricket badminton volleyball boxing rowing".split()),
    "job": (["person", "worker"], "teacher doctor nurse farmer baker carpenter engineer pilot sailor lawyer cook painter writer butcher plumber electrician scientist librarian tailor gardener".split()),
    "part of the body": (["body_part"], "hand foot arm leg head nose ear eye mouth knee elbow shoulder finger toe neck back chest heart stomach tongue".split()),
    "shape": (["shape", "figure"], "circle square triangle rectangle oval sphere cube cone cylinder pyramid".split()),
    "metal": (["metallic_element", "metal", "alloy"], "iron gold silver copper tin lead zinc aluminum nickel steel bronze brass".split()),
    "kind of weather": (["weather", "atmospheric_phenomenon"], "rain snow wind fog storm hail thunder frost".split()),
    "feeling": (["feeling"], "joy anger fear sadness love hope pride envy surprise shame gratitude".split()),
    "thing in a kitchen": (["artifact"], "oven kettle pan pot spoon fork plate cup bowl stove refrigerator toaster sink".split()),
}

EXTRA_WORDS = sorted({item for _, items in CATEGORIES.values() for item in items} | set(
    """lamp candle window door roof wall floor kitchen bedroom garden street bridge river lake ocean sea mountain hill
    valley forest desert island beach cloud sky sun moon star planet earth fire ice sand stone rock soil grass leaf root
    seed branch book page letter word sentence story poem song picture painting photograph newspaper magazine map pen
    pencil paper ink chalk ruler eraser telephone television radio computer keyboard camera clock watch mirror comb brush
    soap towel blanket pillow mattress curtain carpet bottle glass box bag basket suitcase key lock rope chain wheel
    engine motor battery money coin bank shop market restaurant farm village city town country king queen prince princess
    soldier friend neighbor mother father brother sister uncle aunt cousin child baby boy girl man woman family wedding
    birthday party game toy doll ball puzzle chess dance music concert orchestra band festival holiday journey ticket
    passport airport station road path tunnel winter summer spring autumn morning evening night noon midnight week month
    year century minute hour second number sum idea dream memory language question answer problem rule law truth lie
    secret promise peace war victory courage kindness patience wisdom knowledge science chemistry physics biology history
    geography mathematics algebra geometry philosophy medicine astronomy art literature grammar alphabet vowel consonant
    noun verb adjective happy sad angry brave lazy clever kind cruel honest polite rude quiet loud hot cold warm cool big
    small tall short long wide narrow fast slow heavy light dark bright clean dirty dry wet new old young rich poor strong
    weak hard soft sweet sour bitter salty empty full open closed early late cheap expensive easy difficult safe dangerous
    run walk jump swim fly climb crawl eat drink sleep dream laugh cry smile shout whisper sing dance read write draw paint
    build break cut sew cook bake wash sweep open close push pull carry throw catch give take buy sell borrow lend find
    lose win teach learn think remember forget know believe hope fear love hate help ask answer speak listen hear see look
    smell taste touch feel begin finish stop wait travel arrive leave grow die live work play rest volcano earthquake
    rainbow thunder lightning glacier waterfall shadow umbrella telescope microscope compass magnet thermometer ladder
    needle thread button pocket ring necklace crown flag sword shield arrow bow gun cannon castle knight dragon ghost
    giant witch fairy angel robot satellite spaceship astronaut galaxy comet atom molecule electron oxygen hydrogen
    carbon energy gravity electricity light sound heat""".split()
))

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Peter Rosa Sam Tina Victor Wendy
Alice Bob Carol Dan Eve Frank Gina Hugo Ines Jonas Karen Lucas Mona Nina Oscar Paula Quinn Ruth Simon Tom Ursula Vera Will
Yara Zoe Adam Bella Carlos Diana Eric Fatima George Hannah Ivan Julia Kevin Laura Mark Nora Owen Priya Ravi Sara Theo Uma
Amir Chen Mei Kenji Yuki Omar Layla Sofia Mateo Elena Lars Astrid Pierre Claire Hans Greta Kofi Ama Liam Aisha""".split()

PLACES = """Paris London Berlin Madrid Rome Vienna Oslo Lisbon Athens Dublin Prague Warsaw Tokyo Delhi Cairo Boston Chicago
Toronto Sydney Lima Nairobi Seoul Bangkok Havana Zurich Geneva Milan Munich Hamburg Seattle Denver Texas Spain Norway Kenya
Brazil Canada Mexico India China Japan Egypt France Italy Poland Sweden""".split()

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "Greece": "Athens",
    "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen",
    "Finland": "Helsinki", "Ireland": "Dublin", "the United Kingdom": "London", "England": "London", "Belgium": "Brussels",
    "Hungary": "Budapest", "Japan": "Tokyo", "China": "Beijing", "India": "New Delhi", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Canada": "Ottawa", "the United States": "Washington, D.C.", "Mexico": "Mexico City", "Brazil": "Brasília",
    "Argentina": "Buenos Aires", "Peru": "Lima", "Cuba": "Havana", "Australia": "Canberra", "Thailand": "Bangkok",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Iceland": "Reykjavík", "Turkey": "Ankara", "Chile": "Santiago",
    "the Netherlands": "Amsterdam", "Romania": "Bucharest", "South Korea": "Seoul", "Vietnam": "Hanoi",
}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
SEASONS = "spring summer autumn winter".split()
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
RAINBOW = "red orange yellow green blue indigo violet".split()

OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "happy": "sad", "light": "dark", "new": "old",
    "young": "old", "rich": "poor", "strong": "weak", "hard": "soft", "wet": "dry", "clean": "dirty", "open": "closed",
    "early": "late", "cheap": "expensive", "easy": "difficult", "safe": "dangerous", "full": "empty", "loud": "quiet",
    "high": "low", "wide": "narrow", "thick": "thin", "sweet": "bitter", "true": "false", "good": "bad", "right": "wrong",
    "up": "down", "left": "right", "in": "out", "day": "night", "begin": "end", "give": "take", "buy": "sell",
    "love": "hate", "win": "lose", "push": "pull", "laugh": "cry", "always": "never", "first": "last", "before": "after",
    "inside": "outside", "top": "bottom", "front": "back", "north": "south", "east": "west", "summer": "winter",
    "brave": "cowardly", "polite": "rude", "kind": "cruel", "noisy": "silent", "deep": "shallow", "smooth": "rough",
    "sharp": "blunt", "heavy": "light", "near": "far", "alive": "dead", "awake": "asleep", "ugly": "beautiful",
}
