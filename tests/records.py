"""What the tests of feedback and reports share: records made from real judgements, and a strict reader of pages."""

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import lxml.html
from lxml import etree

from autograder.checks import Check, Named, of_chapter
from autograder.judge import Result, in_process, judge
from autograder.record import Answer, Record
from tests.course_fixtures import CHAPTER

Choice = Callable[[Check], Named]
VOID = {"meta", "br", "rect", "line", "link", "hr", "img"}
HOSTILE = "<script>alert(1)</script> ]]> </style> {{ 7 * 7 }} \"'& \u202eback\u202c \x1b[31mred\x1b[0m \x00 \ud800"
"""Markup, a template's braces, the end of a section, characters that reorder text, a terminal's codes, no character."""


def right(check: Check) -> Named:
    return check.variants[0]


@cache
def verdict(check: Check, solution: Named) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge(check, in_process(solution.target), graded=True)


def record_of(student: str, choose: Choice = right, **more: Any) -> Record:
    """The record of a student who solved each exercise of the first chapter as `choose` says."""
    chosen = {check.name: (check, choose(check)) for check in of_chapter(CHAPTER)}
    answers = {
        name: Answer(replace(verdict(check, solution)), source=solution.source)
        for name, (check, solution) in chosen.items()
    }
    return Record(
        CHAPTER, student, seed=8675309, digest="digest", graded="2030-01-02T03:04:05", answers=answers, **more
    )


class Page:
    """A page, read by a real parser that forgives nothing; refuses whatever could load or run something."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.tree = lxml.html.document_fromstring(html.encode("utf-8"), parser=lxml.html.HTMLParser(encoding="utf-8"))
        # Every element is closed, in order: once the void ones are too, the page is XML.
        closed = re.sub(rf"<({'|'.join(VOID)})\b([^<>]*?)/?>", r"<\1\2/>", html.partition("<!DOCTYPE html>")[2])
        etree.fromstring(closed.replace("<summary>", "<summary >").replace(" open>", ' open="">').encode("utf-8"))
        assert not self.tree.xpath("//script | //iframe | //object | //embed | //img | //link | //base | //form")
        attributes = {name for element in self.tree.iter("*") for name in element.attrib}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")]
        styles = " ".join([*self.tree.xpath("//style/text()"), *self.tree.xpath("//@style")])
        assert not re.search(r"url\(|@import|expression|http", styles)

    @property
    def text(self) -> str:
        return squeeze("".join(self.tree.xpath("//body//text()")))

    def of(self, path: str) -> list[str]:
        """The texts of the elements at an XPath."""
        return [squeeze(element.text_content()) for element in self.tree.xpath(path)]

    @property
    def links(self) -> list[str]:
        """The addresses that the page leads to outside itself."""
        return [href for href in self.tree.xpath("//@href") if not href.startswith("#")]

    @property
    def headings(self) -> list[int]:
        """The levels of the headings, in order."""
        return [int(element.tag[1]) for element in self.tree.xpath("//h1 | //h2 | //h3 | //h4")]


def squeeze(text: str) -> str:
    return " ".join(text.split())


def in_order(levels: list[int]) -> bool:
    """Whether a page has one title, and no heading skips a level."""
    return levels[:1] == [1] and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
