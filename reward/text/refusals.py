"""Texts that begin by declining to answer, or by missing an image.

Whole phrases at the beginning count, never single words: one may be sorry for a dog, or not be able to see one.
"""

from __future__ import annotations

import re

#: Characters that are looked at.
_OPENING = 300

# Patterns are matched against an opening in small letters, with straight apostrophes and single spaces.
_I_AM = "(?:i'm|i am|im)"
_CANNOT = (
    "(?:i (?:cannot|can not|can't|cant|could not|couldn't|will not|won't)"
    f"|{_I_AM} (?:not able|unable) to"
    "|i (?:do not|don't) have the (?:ability|capability) to)"
)
_NOT = "(?:not|can't|cannot|unable|don't|doesn't|isn't)\\b"
_PICTURE = "(?:images?|pictures?|photos?|photographs?|files?|attachments?)"
_GIVEN = "(?:attached|uploaded|provided|included|shared|given)"
_SORRY = (
    f"(?:(?:{_I_AM} )?(?:so |very |really |truly )?sorry|my apologies|apologies|i (?:sincerely )?apologi[sz]e"
    f"|unfortunately|{_I_AM} afraid)"
    "(?: for (?:the|any) (?:confusion|inconvenience))?[ ,.!:;-]*(?:(?:but|that|however)[ ,]+)?"
)
#: Nothing of substance follows: what comes next is the end, a reason, or the reader.
_END = " ?(?:[.,;!]|$|because\\b|since\\b|as\\b|due\\b|directly\\b|you\\b|that you\\b|or\\b)"
_LOOK = "(?:see|view|open|access|analy[sz]e|process|interpret|look at|display|describe)"

_PATTERNS = (
    # "I can't help with that", "Sorry, but I cannot assist."
    f"(?:{_SORRY})?{_CANNOT} (?:help|assist|comply|engage)(?: (?:you|with|in)\\b|{_END})",
    f"(?:{_SORRY})?{_CANNOT} (?:fulfill?|answer|complete|process|respond to|discuss|do) (?:that|this|your|the)"
    f"(?: (?:request|question|prompt|task))?{_END}",
    f"(?:{_SORRY})?{_CANNOT} (?:provide|offer|give) (?:you )?(?:with )?(?:any )?"
    "(?:assistance|help|support|a response|an answer)\\b",
    # "I am unable to view images", and not "I cannot see the picture on the wall".
    f"(?:{_SORRY})?{_CANNOT} (?:directly |actually |physically )?{_LOOK} (?:or {_LOOK} )?"
    f"(?:the |this |that |your |any |an )?(?:{_GIVEN} |actual )?{_PICTURE}{_END}",
    f"(?:{_SORRY})?{_CANNOT} (?:identify|recogni[sz]e|name) (?:any |specific |real )*(?:people|persons|individuals)"
    # Not "..., but there are two near a bus": that answers.
    "(?: (?:in|on|from|by|based on|shown|depicted|or)\\b[^.,;!\n]{0,60})?"
    " ?(?:[.!]|$|,? ?(?:because|since|as|due)\\b|[,;]? ?(?:but|however),? (?:i|if|please|feel|let)\\b)",
    # "As an AI language model, I cannot ...", and not "As an AI-generated poster, it ..."
    "as an? (?:ai|artificial intelligence|large|language|text|virtual|visual)(?![\\w-])[^.\n]{0,60}? (?:i|my|it is)\\b"
    f"[^.\n]{{0,40}}?{_NOT}",
    f"{_I_AM} (?:just |only |merely )?an? (?:ai|text-based|language model|large language model)(?![\\w-])"
    f"[^.\n]{{0,80}}?{_NOT}",
    # There is no image to speak of.
    f"(?:{_SORRY})?i (?:do not|don't|cannot|can't|did not|didn't) (?:see|have|find|receive) (?:access to )?"
    f"(?:an|any|the|your) {_PICTURE} "
    f"(?:{_GIVEN}|in (?:your|the|our|this) (?:message|conversation|chat|request|prompt))",
    f"(?:{_SORRY})?no {_PICTURE} (?:was|were|has been|have been|is|are|seems to (?:be|have been)) {_GIVEN}",
    f"(?:{_SORRY})?(?:it (?:seems|looks|appears)(?: like)?(?: that)? )?(?:"
    "you (?:have not|haven't|did not|didn't|forgot to) (?:attach|upload|provid|includ|shar|sen)"
    f"|there(?: is|'s) no {_PICTURE} (?:{_GIVEN}|in your))",
    f"(?:{_SORRY}|sure[,.!]? |okay[,.!]? )?(?:please|could you(?: please)?|can you(?: please)?) "
    f"(?:upload|provide|attach|share|send)(?: me)?(?: with)? (?:an|the|your) {_PICTURE}\\b",
    # The same in other languages.
    "(?:lo siento|disculpa|disculpe),? pero no puedo (?:ayudar|asistir|cumplir|procesar|ver (?:la imagen|imágenes))",
    "(?:desculpe|sinto muito),? (?:mas )?não posso (?:ajudar|atender|processar|ver (?:a imagem|imagens))",
    "(?:es tut mir leid|tut mir leid|entschuldigung),? (?:aber )?ich kann (?:dir |ihnen )?"
    "(?:dabei|damit|diese anfrage|das bild|keine bilder)\\b",
    "(?:je suis )?désolée?,? (?:mais )?je ne peux pas "
    "(?:vous aider|t'aider|répondre à|traiter|voir (?:l'image|d'images))",
    "mi dispiace,? (?:ma )?non posso (?:aiutar|assister|vedere (?:l'immagine|immagini))",
    "(?:很|非常)?(?:抱歉|对不起|對不起)[ ,，。]*(?:但)?我(?:无法|無法|不能)"
    "(?:查看|识别|處理|处理|提供|回答|協助|协助|帮助|看到(?:图|圖|该图|这张))",
    "(?:申し訳(?:ありません|ございません)|すみません)[^\n]{0,30}(?:できません|お答え)",
)
_REFUSAL = re.compile("|".join(_PATTERNS))


def refuses(text: str) -> bool:
    """
    >>> refuses("I'm sorry, but I can't assist with that."), refuses("I can't see a dog in the picture.")
    (True, False)
    """
    return _REFUSAL.match(_opening(text)) is not None


def _opening(text: str) -> str:
    start = text[:_OPENING].replace("\u2019", "'").casefold()
    return re.sub(r"\A[\W_]+", "", " ".join(start.split()))
