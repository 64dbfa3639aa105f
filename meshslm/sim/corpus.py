"""Domains, their cards and the prompts that clients of the simulation send.

Why it is code and not a file: a scenario names domains, and what they mean must not change between
two runs that are compared.

Rules:
- A prompt never occurs in its card: routing is measured on text that the cards do not contain.
- Cards share words ("write", "explain", "plan"), as real ones do; a domain is not told by one word.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm.wire.messages import DomainCard


@dataclass(frozen=True, slots=True)
class Topic:
    """One domain: what a specialist announces, and what clients ask of it."""

    card: DomainCard
    prompts: tuple[str, ...]


def _topic(
    domain: str, sentence: str, examples: tuple[str, ...], prompts: tuple[str, ...]
) -> Topic:
    return Topic(DomainCard(domain, sentence, examples), prompts)


_CODE = _topic(
    "code",
    "Programming: write, explain, test and fix source code, scripts, queries and build files.",
    (
        "Write a Python function that parses a date",
        "Fix this null pointer exception in my Java class",
        "Explain what this regular expression matches",
        "How do I join two tables in SQL?",
        "Refactor this loop into a list comprehension",
        "Why does git say my branch has diverged?",
        "Add a unit test for this parser",
        "Write a shell script that renames files",
        "My program crashes with a segmentation fault",
    ),
    (
        "Write a Python script that counts words in a file",
        "Why does this function raise a type error exception?",
        "Explain this SQL query and add an index to the table",
        "How do I undo the last commit in git?",
        "Refactor this class so that a unit test can reach the parser",
        "My shell script loops for ever, find the bug in the code",
        "Write a regular expression for an email address",
        "Compile error: undefined reference in my C program",
        "Explain the difference between a list and a tuple in Python code",
        "Fix the off by one bug in this array loop",
    ),
)

_WRITING = _topic(
    "writing",
    "Prose: write, edit, shorten and translate letters, stories, essays, speeches and posts.",
    (
        "Write a short poem about the sea",
        "Make this paragraph sound more formal",
        "Write a cover letter for a teaching job",
        "Summarise this article in three sentences",
        "Think of a title for my short story",
        "Correct the grammar of this email",
        "Write a wedding speech for my sister",
        "Translate this letter into simple English",
        "Describe a rainy street for a novel",
    ),
    (
        "Write a poem about an old lighthouse by the sea",
        "Correct the grammar and tone of this letter",
        "Write the first paragraph of a story about two brothers",
        "Summarise this essay in five sentences",
        "Make my email to the landlord more formal and polite",
        "Write a farewell speech for a colleague",
        "Think of three titles for a novel set in winter",
        "Describe an empty street at night for my story",
        "Write a letter that invites neighbours to a party",
        "Shorten this paragraph without losing its tone",
    ),
)

_MATHS = _topic(
    "maths",
    "Mathematics: solve equations, prove theorems, explain algebra, geometry and probability.",
    (
        "Solve the equation 3x + 5 = 20",
        "What is the derivative of sine squared?",
        "Prove that the square root of two is irrational",
        "Find the area of a triangle with sides 3, 4 and 5",
        "What is the probability of two sixes with two dice?",
        "Explain what an eigenvalue of a matrix is",
        "Integrate x squared from zero to one",
        "How many ways are there to order five books?",
        "Factor this polynomial",
    ),
    (
        "Solve the equation x squared minus 4x equals 12",
        "What is the derivative of x to the power of five?",
        "Prove that the sum of two odd numbers is even",
        "What is the probability of drawing an ace from the deck?",
        "Find the area of a circle with a radius of seven",
        "Explain the determinant of a matrix",
        "Integrate the cosine from zero to pi",
        "Factor the polynomial x cubed minus one",
        "How many ways are there to choose three of ten numbers?",
        "Solve this system of two linear equations",
    ),
)

_HEALTH = _topic(
    "health",
    "Health: explain symptoms, medicines, exercise, sleep and diet, and when to see a doctor.",
    (
        "What helps against a sore throat?",
        "How much sleep does an adult need?",
        "Explain what blood pressure numbers mean",
        "Can I take ibuprofen and paracetamol together?",
        "Plan a week of exercise for a beginner",
        "My knee hurts when I climb stairs",
        "What are symptoms of iron deficiency?",
        "When should I see a doctor about a headache?",
        "Is this diet safe during pregnancy?",
    ),
    (
        "What helps against a headache and a fever?",
        "How much exercise does an adult need in a week?",
        "Explain what the symptoms of diabetes are",
        "Can I take this medicine with high blood pressure?",
        "My back hurts after exercise, should I see a doctor?",
        "Why do I wake up tired after eight hours of sleep?",
        "Is a diet without meat safe for a child?",
        "What are the symptoms of a cold and of the flu?",
        "My throat is sore and my ears hurt",
        "When should I see a doctor about pain in the chest?",
    ),
)

_LAW = _topic(
    "law",
    "Law: explain contracts, tenancy, employment, consumer rights and court procedure.",
    (
        "Can my landlord keep the deposit?",
        "Explain this clause of my employment contract",
        "How long is the notice period for a tenant?",
        "What are my rights when a product is faulty?",
        "Write a formal complaint about an unpaid invoice",
        "Do I need a lawyer for small claims court?",
        "What does liability mean in this contract?",
        "Is a spoken agreement binding?",
        "How do I appeal a parking fine?",
    ),
    (
        "Can my landlord raise the rent without notice?",
        "Explain the liability clause in this rental contract",
        "What are my rights when my flight is cancelled?",
        "How long is the notice period in an employment contract?",
        "Is a contract binding when it is not signed?",
        "Do I need a lawyer to appeal a court decision?",
        "The tenant did not pay, can I keep the deposit?",
        "How do I claim an unpaid invoice in court?",
        "What are consumer rights for a faulty phone?",
        "Is this clause about overtime legal?",
    ),
)

_COOKING = _topic(
    "cooking",
    "Cooking: recipes, ingredients, menus, baking, and how to store and plan meals.",
    (
        "A recipe for tomato soup",
        "How long do I boil an egg?",
        "What can I cook with rice, onions and carrots?",
        "Plan a dinner menu for six guests",
        "Replace butter in this cake recipe",
        "Why did my bread not rise?",
        "Which spices go with lamb?",
        "How do I store fresh herbs?",
        "Make this sauce less salty",
    ),
    (
        "A recipe for onion soup with cheese",
        "How long do I bake a potato in the oven?",
        "What can I cook with eggs, rice and tomato?",
        "Why did my cake not rise in the oven?",
        "Plan a vegetarian dinner menu for four guests",
        "Which spices go with roast carrots?",
        "How do I store fresh bread?",
        "Replace eggs in this pancake recipe",
        "My sauce is too thin, how do I thicken it?",
        "A quick recipe with lamb and herbs",
    ),
)

_GENERAL = _topic(
    "general",
    "Anything else: facts, advice, plans, small talk and questions of everyday life.",
    (
        "What is the capital of Norway?",
        "Tell me something interesting",
        "Which day comes after Tuesday?",
        "How far is the moon?",
    ),
    (),
)

TOPICS: tuple[Topic, ...] = (_CODE, _WRITING, _MATHS, _HEALTH, _LAW, _COOKING, _GENERAL)
"""Every domain the simulation knows, in the order in which default profiles are dealt out.
The last takes what the others do not recognise; no client asks for it."""

_BY_DOMAIN = {topic.card.domain: topic for topic in TOPICS}
DOMAINS: tuple[str, ...] = tuple(_BY_DOMAIN)


def topic(domain: str) -> Topic:
    """The topic of `domain`; `KeyError` where there is none."""
    return _BY_DOMAIN[domain]
