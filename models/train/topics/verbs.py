"""The forms of English verbs."""

from __future__ import annotations

import re

IRREGULAR = {base: (past, participle) for base, past, participle in (line.split() for line in """
break broke broken|buy bought bought|sell sold sold|find found found|lose lost lost|hide hid hidden|bring brought brought|keep kept kept|build built built|draw drew drawn|steal stole stolen|write wrote written|read read read
sew sewed sewn|eat ate eaten|feed fed fed|forget forgot forgotten|leave left left|send sent sent|lend lent lent|give gave given|show showed shown|take took taken|throw threw thrown|wear wore worn|win won won|get got got
meet met met|see saw seen|sing sang sung|swim swam swum|teach taught taught|sleep slept slept|run ran run|ride rode ridden|drive drove driven|fly flew flown|catch caught caught|choose chose chosen|cut cut cut|hang hung hung
make made made|pay paid paid|put put put|know knew known|call called called|say said said|speak spoke spoken|think thought thought|spend spent spent|begin began begun|go went gone|grow grew grown|fall fell fallen|learn learned learned
hear heard heard|have had had|tell told told|shake shook shaken|tear tore torn|drink drank drunk|hit hit hit|hold held held|light lit lit|set set set|sit sat sat|stand stood stood|tie tied tied|dye dyed dyed|greet greeted greeted""".replace("\n", "|").strip("|").split("|"))}
CONSONANT_Y = re.compile(r".*[^aeiou]y")


def doubled(verb: str) -> str:
    """The last letter once more, where endings ask for it: stop, stopped."""
    return verb[-1] if re.fullmatch(r"(?:[^aeiou]|qu)*[aeiou][bdgklmnprt]", verb) or verb in ("begin", "forget", "admit", "refer", "prefer") else ""


def third(verb: str) -> str:
    if CONSONANT_Y.fullmatch(verb):
        return verb[:-1] + "ies"
    return "has" if verb == "have" else verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o", "zz")) else "s")


def gerund(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + doubled(verb) + "ing"


def past(verb: str) -> str:
    if verb in IRREGULAR:
        return IRREGULAR[verb][0]
    if CONSONANT_Y.fullmatch(verb):
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else doubled(verb) + "ed")


def participle(verb: str) -> str:
    return IRREGULAR[verb][1] if verb in IRREGULAR else past(verb)
