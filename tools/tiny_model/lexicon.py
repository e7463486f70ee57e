"""The words that the names of random functions and parameters are made of; those of the evaluation never train."""

from __future__ import annotations

from . import words
from .words import split

VERBS = split(
    "accept activate add adjust align allocate allow analyse announce apply approve archive arrange ask assess assign "
    "attach balance bake ban begin bind block boost borrow browse build bundle cancel capture change charge check "
    "choose classify clean clear clone close collect combine compare compile complete compose compress confirm "
    "connect convert cool copy correct count create crop cut debug decline decode decorate define delay delete "
    "deliver deny deploy describe detect disable discard dismiss display divide download draw drive drop dry edit "
    "eject empty enable encode encrypt end enter erase estimate evaluate examine exchange execute expand expire "
    "explain export extend extract fetch fill filter finish fix flag flip fold follow format forward freeze generate "
    "get give grade grant group grow guard handle heat help hide highlight hold identify ignore import improve "
    "include increase inform insert inspect install invite join judge keep label launch lay lead learn lease lend "
    "lift limit link list load locate log lower make manage map mark match measure melt mend merge migrate mix modify "
    "monitor mount move mute name notify number offer open operate order organise pack park pause pay perform pick "
    "ping place plan plant plot polish post praise predict prepare present press preview print process produce "
    "promote propose protect provide publish pull purge push query raise rank rate reach rebuild recall receive "
    "recommend record recover reduce refresh refuse register reject release remind remove rename render rent repair "
    "replace reply report request rescue reset resize resolve restart restore resume retrieve return reveal review "
    "revoke ring rotate round route run sample save scale scan schedule score seal secure select sell send separate "
    "serve set shape share sharpen shift ship show shrink sign simulate skip slice slow solve sort spend spin split "
    "spread stack start steer stop store stretch strip submit subscribe suggest supply suspend switch sync tag teach "
    "tell tend test tidy tie tighten toggle trace track trade train transfer transform trigger trim tune turn twist "
    "unblock undo unload update upgrade upload validate verify view visit wake warn wash watch water weigh widen wipe "
    "wrap zip",
    "audit buffer calibrate dispatch enroll flush gather hire index juggle",
)
NOUNS = split(
    "access account acorn actor address agency agenda aircraft airport alarm album alert almanac amplifier anchor "
    "angle apartment app appointment aquarium arcade archive arena article artwork asset atlas auction author avatar "
    "badge bag bakery balance ballot band bank banner barrel basket bath battery bay beam bed bee belt bench bicycle "
    "bill bin biscuit blog board boiler bonus book bookmark boot bottle box bracelet branch brand brick bridge brush "
    "bucket budget bug building bulb bus button cabin cabinet cable cache calendar camera camp campaign canvas car "
    "carbon card cargo carpet carriage cart case castle catalog category cellar ceremony chain chair channel chapter "
    "chart chat cheese chess choir cinema circle circuit class client cliff clinic clock closet cloth cloud club "
    "cluster coach coast coat code coin collar column comment company compass complaint computer concert condition "
    "conference connection console container contract copy corner costume cottage counter coupon course court cover "
    "crane cream credit crew crop crowd crystal cup curtain customer cycle dam dashboard database dataset deal debt "
    "deck defect delivery department deposit desk device diagram diary diet dinner diploma directory discount dish "
    "disk display dock doctor document dog dome donation dragon drawer dress drill drone drum duty ear edge editor "
    "elevator email emblem employee energy engine entrance envelope episode equipment error escalator essay estate "
    "event exam exhibit expense experiment fabric factory fan farm feature fee feed fence festival field file film "
    "filter fireplace fish flag flat fleet flight floor flower folder font forest fork form fountain frame fridge "
    "friend fruit fuel function furnace gallery game garage garden gas gate gauge generator gift glass glove goal "
    "goat grant graph grid guest guide guitar gym hall hammer handle harbor hat heater hedge helicopter helmet herd "
    "hero highway hill history hobby holiday hook horse hospital hose house idea image incident inbox instrument "
    "insurance internet interview invitation invoice island issue item jacket jar jersey job joke journal journey "
    "judge jug juice kettle key keyboard kitchen kite knife label laboratory ladder lake language laptop lawn layer "
    "layout leaflet league lecture ledger legend lens lesson letter level lever library licence lift line link list "
    "loan locker log logo lorry lottery lounge machine magazine magnet mail manual map marble market mask match "
    "mattress meadow meal medal medicine meeting member memo memory menu message meter metric microphone mill mine "
    "mirror mission model module monitor monument motor mountain mouse movie mug museum nail necklace needle nest "
    "network newspaper node note notebook nurse oak oar object ocean office orbit orchard order organ oven owner "
    "packet page palace pan panel parade parcel park parrot partner party passport password path patient pattern "
    "payment pen pension permit phone photo piano picture pier pillow pilot pipe pipeline pizza plan plane planet "
    "plant plate player playlist plot plug pocket podcast poem policy poll pond pool port portal portrait poster pot "
    "power prank prescription present printer prison prize profile program project proof property proposal puppet "
    "purchase puzzle quarry queue quiz quest rack radar radio raft rail ranch raffle razor reactor reading receipt "
    "record refund region relay rent report rescue reservation residence restaurant review reward ribbon ride rifle "
    "river road robot rocket roof room rope route router rug rule sail salad salary salon sample sand sauna scarf "
    "scene school scooter score screen script sculpture seat secret sensor sentence server session shade shadow share "
    "sheep sheet shelf shell shelter ship shirt shoe shop shovel shower shuttle sign signal site sketch ski skill "
    "slide slot soap socket sofa song soup space spade speaker speech spice spoon stadium staff stage stair stamp "
    "star statement station statue step stereo stool storage storm story stove stream street string studio submarine "
    "subscription suit suitcase summary supper survey switch sword system table tablet tank tap target tariff task "
    "tax taxi team telescope temple tenant tent terminal theatre thread thermostat throne ticket tie tile timer title "
    "toaster token tool topic torch tour towel tower town toy track tractor trail trailer tram transcript translation "
    "tray treasure treaty tree trial tribe trip trophy truck trunk tube tunnel umbrella uniform unit university user "
    "vaccine vacuum valley valve van variable vault vehicle venue verdict vessel video village vineyard visa visitor "
    "voice volcano voucher voyage wagon wall wallet wardrobe warehouse warranty watch wave website wedding well whale "
    "wheel whistle widget wind window wing winner wire witness workshop worker yacht yard zone zoo",
    "antenna beacon canal dossier ferry harvest lantern orchestra satellite turbine",
)
ADJECTIVES = tuple(
    "active all any best big blue brief cheap clean cold current daily dark deep default digital early empty fast "
    "final first flat free fresh full global good great green hidden high home hot idle inner large last late local "
    "long lost low main major max min modern monthly new next noisy old open outer own past private public quick rare "
    "raw recent red remote right safe secret short silent simple slow small smart soft solid spare strong sunny tall "
    "temporary tiny top upper urgent user valid virtual warm weekly wet wide wild young".split())
PARAMETERS = split(
    "accent account action alias alpha amount angle animal answer area army artist aspect author backup badge balance "
    "band base beam beta bias block body bonus border boss brand breed brightness budget builder button buyer "
    "calories camera candidate carrier category cause cell chapter character charge circle class client climate code "
    "color column command comment company contrast copies corner cost count country coupon course cover creator "
    "credit crew currency customer cycle damage date day days decade degree delay density depth design device "
    "diameter difficulty direction discount distance district division dose driver duration edge edition effect "
    "effort element employee energy engine entry error event expiry extra factor fee field file filter finish firm "
    "flag floor focus folder font force form format formula frame frequency fuel function gain gap gate gender genre "
    "goal grain group guest handle hardness head heat height hint hour hours icon idea image input issue item job key "
    "keyword kind label lane language latitude layer layout length level library licence limit line link list loan "
    "longitude loss manager margin mark mass master match material max maximum meal measure medium member memory menu "
    "message method metric mileage min minimum minutes mode model module mood month motive motor name network "
    "nickname node noise note number object occasion offset operator option order organ origin output owner page "
    "pages pair part partner passport password path pattern payment people percent period person phone phrase piece "
    "pitch pixels plan plate player pool port position power precision prefix pressure price priority product profile "
    "progress project property provider purpose quality quantity query question range rank rate ratio reason "
    "recipient record reference region relation report resource response result reward rhythm role room rotation "
    "round route rule salary sample scale scene score season seat seats second section sector seed segment seller "
    "sender serial series server session shade shadow shape side signal size skill slope slot source space span "
    "species speed stage start state station status step stop storage strategy street strength style subject suffix "
    "supplier surface surname table tag target task tax team temperature template tempo term text texture theme "
    "thickness threshold time title token tolerance tone topic total track traffic type unit urgency usage user value "
    "variant vehicle vendor version victim visitor voice volume voltage wage warranty water weather week weekday "
    "weight wheel width wind window winner word worker year zone zoom",
    "altitude batch capacity deadline flavour grade humidity interval quota radius",
)

# Words of about the same meaning or the same matter, one group a line: a question may use one, the function another.
ALIKE_VERBS = tuple(tuple(group.split()) for group in """
find search seek locate discover
get fetch retrieve obtain receive
show display present list view
buy purchase order acquire
sell trade offer
send deliver mail ship post
make create build produce generate
delete remove erase drop discard
change modify edit alter update adjust
start begin launch open run
stop end finish halt terminate
fix repair mend restore
book reserve schedule arrange
tell inform notify say announce
ask request inquire question
count total sum tally
compute calculate work solve
check verify test inspect examine
store keep save archive
join connect link combine attach
split separate divide
travel go journey fly
drive steer ride
walk stroll hike run
eat dine taste lunch
drink sip pour
bake roast fry grill
wash clean rinse wipe
close shut seal
grow increase raise expand
shrink reduce lower decrease
call phone ring dial
write compose note type
read study browse
look watch see view
hear listen
speak talk chat
teach explain train
learn study practise
choose pick select
give donate grant hand
take grab pick carry
move shift transfer
copy duplicate clone repeat
measure weigh gauge size
play perform act
paint draw sketch colour
sing hum
pay spend settle
lend borrow rent lease
employ recruit engage
fire dismiss
win beat defeat
lose miss
help assist support
guard protect defend watch
hide cover mask
break damage destroy
cut trim crop slice
warm heat
cool chill freeze
plan organise prepare
wait pause rest
sleep nap rest
wake rouse
meet visit see
marry wed
rate score judge
guess estimate predict
rename label name call
publish print release
translate interpret
cancel revoke withdraw
accept approve allow permit
refuse reject deny decline
forbid ban block
turn rotate spin
throw toss cast
catch grab
push press shove
pull drag
plant sow
pick collect
mix blend stir
sort rank order
compare match
mark tag flag
track follow trace
""".strip().splitlines())
ALIKE_NOUNS = tuple(tuple(group.split()) for group in """
film movie cinema
song music melody tune
trip travel journey holiday vacation
meal dinner lunch supper food
kitchen meal oven pan
flight plane airport
car vehicle automobile driving
bicycle bike cycling
ship boat harbor
bus coach stop
weather rain sun storm
wind air breeze
money cash dollars
cost fee charge
salary wage pay income
bank account money
tax duty
shop store market
doctor physician clinic illness
nurse patient hospital
medicine pill drug pharmacy
dentist tooth
teacher school lesson class
student pupil exam
university course lecture
book novel author
newspaper news article headline
letter post envelope stamp
email inbox mailbox
message note text
phone call number
picture photo image camera
painting art museum
house home building flat
room hall chamber
garden plant flower lawn
tree wood forest
dog puppy pet
cat kitten pet
animal zoo beast
bird nest wing
fish sea fishing
farm cow field
river stream water
mountain hill peak
street road route
map way directions
city town place
country nation state
king queen throne
friend buddy companion
child kid baby
family parents relatives
wedding marriage bride
party celebration guests
birthday cake presents
gift present surprise
game match play
team players club
goal score point
sport training exercise gym
race run speed
computer machine laptop
screen display monitor
keyboard keys typing
printer paper print
file document paper
folder directory
password login secret
user member customer
server host machine
database table rows
network internet connection
website page site
program software app
error bug fault problem
test check trial
clock watch time hour
calendar date appointment meeting
alarm wake
timer minutes countdown
task job work duty
boss manager chief
worker employee staff
company firm business
product article item goods
parcel package delivery
invoice bill receipt
discount coupon sale
insurance accident damage
police thief crime
court judge law
prison jail cell
fire flame smoke
heating warmth radiator
fridge cold ice
coffee espresso cup
tea kettle leaves
bread bakery loaf
fruit apple banana
soup spoon bowl
pizza cheese tomato
wine bottle glass
salt spice seasoning
shirt clothes trousers jacket
shoe boot foot
hat cap head
hair barber beard
eye sight glasses
ear hearing sound
noise sound volume
voice speech speaking
language word translation
dictionary word meaning
story tale legend
poem verse poetry
joke fun laugh
concert band stage
guitar piano instrument
dance ball step
theatre play actor
radio station channel
television screen channel
video clip film
battery power charge
energy electricity power
bulb light brightness
window glass view
roof top house
wall paint brick
floor ground carpet
bed sleep night
chair seat sofa
garage parking car
fuel petrol tank
space orbit launch
star sky astronomy
moon night sky
planet earth world
island beach sea
storm lightning flash
snow ski winter
camp tent outdoors
luggage suitcase bag
passport visa border
ticket seat entrance
tour guide sights
restaurant table waiter
soldier army war
vote election ballot
question answer quiz
riddle mystery
idea thought suggestion
plan project scheme
report summary overview
chart graph diagram
sum total result
size width height
weight kilos mass
distance miles length
temperature degrees heat
age years birthday
name title label
color shade tint
rule law policy
key access entry
safe vault treasure
jewel ring gold
dust dirt vacuum
laundry shirts washing
garbage trash waste
knife blade cut
nail tool screw
needle thread sewing
soap bath shower
""".strip().splitlines())


def _any() -> tuple[str, ...]:
    """All words that training may use in any place, each once, whatever else they are."""
    lists = (VERBS.seen, NOUNS.seen, ADJECTIVES, PARAMETERS.seen, words.WORDS.seen, *ALIKE_VERBS, *ALIKE_NOUNS,
             "which what who how from to with where when use new next by for of".split())
    held_out = {*VERBS.unseen, *NOUNS.unseen, *PARAMETERS.unseen, *words.WORDS.unseen}
    return tuple(sorted({word for each in lists for word in each if len(word) > 1} - held_out))


ANY = _any()
