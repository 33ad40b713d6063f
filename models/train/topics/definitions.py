"""Definitions we wrote ourselves, for words that people try first and that read poorly when taken from WordNet.

One line per word: `word | definition | kind | example`.
"""

TEXT = """
violin | A violin is a musical instrument with four strings that is held under the chin and played with a bow. | musical instrument | She plays the violin in an orchestra.
piano | A piano is a large musical instrument with black and white keys; pressing a key makes a small hammer strike a string. | musical instrument | He practises the piano every day.
guitar | A guitar is a musical instrument with six strings that are plucked with the fingers. | musical instrument | She sang and played the guitar.
drum | A drum is a musical instrument with a tight skin that is struck with sticks or with the hands. | musical instrument | The drum keeps the beat.
flute | A flute is a thin musical instrument that is played by blowing across a hole at one end. | musical instrument | A flute has a high, clear sound.
organ | An organ is a large musical instrument with keys that sounds by pushing air through pipes. | musical instrument | The organ filled the church with music.
dog | A dog is an animal with four legs that people keep as a pet or train to work. | animal | The dog barked all night.
cat | A cat is a small furry animal with whiskers that people keep as a pet. | animal | The cat slept by the fire.
horse | A horse is a large animal with four legs that people ride or use to pull carts. | animal | The horse galloped across the field.
cow | A cow is a large farm animal that is kept for its milk. | animal | The cow stood in the meadow.
pig | A pig is a farm animal with a flat nose and a curly tail. | animal | The pig rolled in the mud.
sheep | A sheep is a farm animal that is kept for its wool and its meat. | animal | The sheep ate grass on the hill.
goat | A goat is an animal with horns that is good at climbing rocks. | animal | The goat climbed up the cliff.
lion | A lion is a large wild cat that lives in groups in Africa. | animal | The lion slept in the shade.
tiger | A tiger is a large wild cat with orange fur and black stripes. | animal | The tiger hid in the tall grass.
elephant | An elephant is a very large gray animal with a long trunk, big ears and tusks. | animal | The elephant drank water with its trunk.
giraffe | A giraffe is a tall African animal with a very long neck and brown patches. | animal | The giraffe ate leaves from the tree.
zebra | A zebra is an African animal like a horse with black and white stripes. | animal | The zebra ran from the lion.
bear | A bear is a large, heavy animal with thick fur and strong claws. | animal | The bear caught a fish in the river.
wolf | A wolf is a wild animal like a large dog that hunts in packs. | animal | The wolf howled at the moon.
rabbit | A rabbit is a small animal with long ears that lives in holes in the ground. | animal | The rabbit ate a carrot.
mouse | A mouse is a very small animal with a long tail; the word also names the device that moves the pointer on a computer. | animal | The mouse hid under the table.
deer | A deer is a wild animal with long thin legs; the males have antlers. | animal | A deer ran across the road.
monkey | A monkey is a clever animal with a long tail that climbs trees. | animal | The monkey ate a banana.
whale | A whale is a huge animal that lives in the sea and breathes air. | animal | The whale came up to breathe.
penguin | A penguin is a black and white bird that cannot fly but swims very well. | bird | The penguin slid on the ice.
owl | An owl is a bird with large eyes that hunts at night. | bird | The owl sat in the old tree.
eagle | An eagle is a large bird with strong claws and very sharp eyes. | bird | The eagle flew above the mountain.
chicken | A chicken is a farm bird that is kept for its eggs and its meat. | bird | The chicken laid an egg.
robin | A robin is a small brown bird with a red breast. | bird | A robin sang in the garden.
stork | A stork is a large white bird with long red legs and a long bill. | bird | The stork built a nest on the roof.
swallow | A swallow is a small bird with a forked tail that flies very fast. | bird | A swallow flew into the barn.
eel | An eel is a long thin fish that looks like a snake. | fish | The eel hid in the mud.
butterfly | A butterfly is an insect with four large wings that are often brightly colored. | insect | The butterfly landed on a flower.
moth | A moth is an insect like a butterfly that flies at night and is drawn to light. | insect | The moth flew around the lamp.
ladybug | A ladybug is a small round beetle that is red with black spots. | insect | A ladybug sat on the leaf.
bee | A bee is a flying insect that makes honey. | insect | The bee flew from flower to flower.
ant | An ant is a tiny insect that lives in large groups and works hard. | insect | The ant carried a crumb.
spider | A spider is a small animal with eight legs that spins webs to catch insects. | animal | The spider sat in its web.
snake | A snake is a long animal without legs that moves by sliding along the ground. | reptile | The snake hid under a stone.
apple | An apple is a round fruit with a red, yellow or green skin and a crisp white inside. | fruit | He ate an apple for lunch.
banana | A banana is a long curved fruit with a yellow skin. | fruit | The monkey ate a banana.
orange | An orange is a round, juicy fruit with a thick skin; orange is also the color of that fruit. | fruit | She peeled the orange.
pear | A pear is a sweet, juicy fruit that is narrow at the top and wide at the bottom. | fruit | The pear was ripe and sweet.
fig | A fig is a soft, sweet fruit that is full of tiny seeds. | fruit | Figs grow in warm countries.
lime | A lime is a small green fruit with sour juice. | fruit | She put a slice of lime in the water.
lemon | A lemon is a yellow fruit with very sour juice. | fruit | He put lemon in his tea.
blueberry | A blueberry is a small round fruit with a dark blue skin. | fruit | We picked blueberries in the forest.
carrot | A carrot is a long orange vegetable that grows under the ground. | vegetable | The rabbit ate a carrot.
cabbage | A cabbage is a round vegetable with thick green leaves. | vegetable | She made soup from the cabbage.
broccoli | Broccoli is a green vegetable that looks like a small tree. | vegetable | He does not like broccoli.
spinach | Spinach is a vegetable with dark green leaves. | vegetable | Spinach is good for you.
pea | A pea is a small round green vegetable that grows in a pod. | vegetable | There are eight peas in this pod.
potato | A potato is a brown vegetable that grows under the ground and is cooked before it is eaten. | vegetable | We had potatoes for dinner.
onion | An onion is a round vegetable with a strong smell that makes people cry when they cut it. | vegetable | He fried an onion in butter.
tomato | A tomato is a round, red, juicy fruit that is eaten as a vegetable. | vegetable | She put tomatoes in the salad.
rose | A rose is a flower with a sweet smell and thorns on its stem. | flower | He gave her a red rose.
orchid | An orchid is a plant with unusual and beautiful flowers. | flower | The orchid stood by the window.
oak | An oak is a large tree with hard wood that grows from an acorn. | tree | The old oak is two hundred years old.
bread | Bread is a food that is made of flour, water and yeast and baked in an oven. | food | She bought a loaf of bread.
pasta | Pasta is a food made of flour and water, shaped in many ways and cooked in boiling water. | food | We had pasta with cheese.
salad | A salad is a dish of raw vegetables that is eaten cold. | food | He made a salad with tomatoes.
sausage | A sausage is a food made of minced meat in a thin skin. | food | They grilled sausages in the garden.
pie | A pie is a dish of fruit or meat baked in a crust. | food | She baked an apple pie.
biscuit | A biscuit is a small, flat, dry cake. | food | He had a biscuit with his tea.
cheese | Cheese is a solid food that is made from milk. | food | Mice like cheese.
water | Water is a clear liquid that has no taste; rivers, lakes and seas are full of it, and every living thing needs it. | liquid | He drank a glass of water.
tea | Tea is a hot drink that is made by pouring boiling water on dried leaves. | drink | She drinks tea in the afternoon.
coffee | Coffee is a hot brown drink that is made from roasted beans and keeps people awake. | drink | He drinks two cups of coffee every morning.
cocoa | Cocoa is a brown powder made from the seeds of the cacao tree, and a hot drink that is made with it. | drink | The children drank hot cocoa.
milk | Milk is a white liquid that cows and other animals produce to feed their young. | drink | The cat drank the milk.
red | Red is the color of blood and of ripe strawberries. | color | The light turned red.
blue | Blue is the color of a clear sky. | color | She wore a blue dress.
green | Green is the color of grass and leaves. | color | The door is green.
yellow | Yellow is the color of lemons and of the sun in a child's drawing. | color | He has a yellow coat.
purple | Purple is the color that you get when you mix red and blue. | color | The king wore a purple robe.
hammer | A hammer is a tool with a heavy metal head that is used to drive nails. | tool | He hit the nail with a hammer.
saw | A saw is a tool with a toothed blade that is used to cut wood. | tool | She cut the board with a saw.
pliers | Pliers are a tool with two handles and two jaws that is used to grip small things. | tool | He bent the wire with pliers.
key | A key is a small piece of metal that opens a lock. | object | I lost the key to my house.
lock | A lock is a device that keeps a door closed until it is opened with a key. | device | The lock on the door is new.
car | A car is a vehicle with four wheels and an engine that carries a few people. | vehicle | He needs a car to get to work.
bus | A bus is a long vehicle that carries many passengers along a fixed route. | vehicle | She takes the bus to school.
train | A train is a line of connected wagons that is pulled along rails by an engine. | vehicle | The train to the city leaves at nine.
bicycle | A bicycle is a vehicle with two wheels that you move by pushing pedals with your feet. | vehicle | He rides his bicycle to work.
rocket | A rocket is a vehicle that is pushed upward by burning fuel and can travel into space. | vehicle | The rocket flew to the moon.
scooter | A scooter is a small vehicle with two wheels and a board to stand on. | vehicle | The boy rode his scooter down the street.
ship | A ship is a large boat that carries people or goods across the sea. | vehicle | The ship sailed at dawn.
house | A house is a building that people live in. | building | They bought a house near the lake.
school | A school is a place where children go to learn. | building | The school has two hundred pupils.
factory | A factory is a building where things are made with machines. | building | The factory makes shoes.
farm | A farm is land with buildings where crops are grown and animals are kept. | place | They keep cows on the farm.
library | A library is a place where books are kept for people to read or borrow. | building | She borrowed a book from the library.
chair | A chair is a seat with a back for one person. | piece of furniture | He sat down on the chair.
table | A table is a piece of furniture with a flat top and legs. | piece of furniture | The book is on the table.
lamp | A lamp is a device that gives light. | device | She switched on the lamp.
candle | A candle is a stick of wax with a string in the middle that burns to give light. | object | They lit a candle.
clock | A clock is a device that shows the time. | device | The clock says half past three.
telephone | A telephone is a device for talking to someone who is far away. | device | She answered the telephone.
thermometer | A thermometer is an instrument that measures temperature. | instrument | The thermometer shows twenty degrees.
computer | A computer is a machine that stores and works on information by following instructions. | machine | He wrote the letter on his computer.
umbrella | An umbrella is a round cover on a stick that keeps the rain off. | object | Take an umbrella; it is raining.
shoe | A shoe is a covering for the foot with a hard sole. | piece of clothing | She lost her left shoe.
trousers | Trousers are a piece of clothing that covers both legs separately. | piece of clothing | He wore gray trousers.
necklace | A necklace is a piece of jewelry that is worn around the neck. | piece of jewelry | She wore a silver necklace.
book | A book is a set of printed pages that are held together in a cover for reading. | object | I am reading a good book.
rain | Rain is water that falls from the clouds in drops. | kind of weather | The rain lasted all day.
snow | Snow is frozen water that falls from the clouds in soft white flakes. | kind of weather | The children played in the snow.
ice | Ice is water that has frozen and become solid. | substance | There was ice on the lake.
wind | Wind is air that moves across the earth. | kind of weather | The wind blew his hat away.
fire | Fire is the heat, light and flames that burning things produce. | process | They sat around the fire.
sun | The sun is the star at the center of our solar system; it gives the earth light and warmth. | star | The sun rises in the east.
moon | The moon is the large round body that circles the earth and shines at night. | body in the sky | The moon is full tonight.
star | A star is a huge ball of hot gas in space that looks like a point of light at night. | body in the sky | We counted the stars.
planet | A planet is a large round body in space that moves around a star. | body in the sky | The earth is a planet.
shadow | A shadow is a dark shape that appears where something blocks the light. | shape | The tree casts a long shadow.
rainbow | A rainbow is an arch of colors in the sky that appears when the sun shines through rain. | thing in the sky | We saw a rainbow after the storm.
river | A river is a long stream of water that flows across the land to a lake or to the sea. | stream | The river flows through the town.
mountain | A mountain is a very high piece of land with steep sides. | place | They climbed the mountain.
zinc | Zinc is a bluish-white metal that is used to protect iron from rust. | metal | The bucket is covered with zinc.
iron | Iron is a strong, heavy metal that is used to make steel. | metal | The gate is made of iron.
gold | Gold is a soft, heavy, yellow metal that is worth a lot of money. | metal | Her ring is made of gold.
nitrogen | Nitrogen is a gas without color or smell that makes up most of the air. | gas | Air is mostly nitrogen.
oxygen | Oxygen is a gas in the air that people and animals need to breathe. | gas | Fire needs oxygen.
child | A child is a young person who is not yet grown up. | person | The child played in the garden.
friend | A friend is a person whom you know well and like. | person | He is my best friend.
doctor | A doctor is a person who treats people who are ill. | person | The doctor told her to rest.
teacher | A teacher is a person whose job is to help others learn. | person | The teacher explained the rule again.
writer | A writer is a person who writes books, stories or articles. | person | The writer finished her novel.
hand | A hand is the part of the body at the end of the arm, with four fingers and a thumb. | part of the body | He held the cup in his hand.
heart | The heart is the part of the body that pumps the blood. | part of the body | Her heart beat fast.
eye | An eye is the part of the body that sees. | part of the body | She has brown eyes.
happy | Happy means feeling or showing joy. | | The happy children sang a song.
sad | Sad means feeling or showing sorrow. | | He was sad when his friend left.
cold | Cold means having a low temperature. | | The water is too cold for swimming.
sour | Sour means having a sharp taste like that of lemons. | | The milk has gone sour.
open | Open means not closed, so that people or things can go through. | | The door is open.
sadness | Sadness is the feeling of being sad. | feeling | Her eyes were full of sadness.
peace | Peace is a time without war or fighting. | state | The two countries live in peace.
dream | A dream is a series of pictures and thoughts that pass through the mind during sleep. | experience | I had a strange dream last night.
promise | A promise is a statement that you will certainly do something. | statement | He kept his promise.
holiday | A holiday is a day or a longer time when people do not have to work. | time | We spent our holiday at the sea.
midnight | Midnight is twelve o'clock at night. | time | The party ended at midnight.
help | To help means to make it easier for someone to do something. | | Can you help me carry this box?
live | To live means to be alive, or to have your home in a place. | | They live near the sea.
work | To work means to use effort to do something, often for money. | | She works in a hospital.
stop | To stop means to end a movement or an action. | | The bus stops here.
finish | To finish means to come or bring to an end. | | She finished her homework.
cry | To cry means to have tears run from the eyes, often out of sadness. | | The baby began to cry.
sweep | To sweep means to clean a floor with a broom. | | He sweeps the kitchen every evening.
swimming | Swimming is the sport of moving through water with the arms and legs. | sport | Swimming keeps you fit.
hockey | Hockey is a game in which two teams use curved sticks to hit a ball or a puck into a goal. | sport | They play hockey on the ice.
rowing | Rowing is the sport of moving a boat with oars. | sport | He goes rowing on the lake.
football | Football is a game in which two teams try to get a ball into the other team's goal. | sport | They play football after school.
circle | A circle is a round shape whose edge is everywhere the same distance from its center. | shape | Draw a circle around the word.
square | A square is a shape with four equal sides and four right angles. | shape | The garden is a square.
triangle | A triangle is a shape with three sides. | shape | A triangle has three corners.
baton | A baton is a short stick; in a relay race one runner hands it to the next, and a conductor uses one to lead an orchestra. | stick | She passed the baton to the next runner.
router | A router is a device or a program that decides where data should go next. | device | The router sends each request to a worker.
relay | A relay is a race in which the members of a team take turns and hand over a baton. | race | Our team won the relay.
"""


def entries() -> dict[str, tuple[str, str, str]]:
    """Maps a word to its definition, kind and example."""
    rows = ([cell.strip() for cell in line.split("|")] for line in TEXT.strip().splitlines())
    return {word: (definition, kind, example) for word, definition, kind, example in rows}
