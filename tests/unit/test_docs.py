"""What the documents say is true: commands, options, files, links, settings, topics field by field."""

import ast
import re
import shlex
from pathlib import Path
from typing import cast, get_args

import click
import confluent_kafka
import msgspec
import pytest
from kafka import KafkaConsumer

from fraudstream.cli import COMMANDS, root
from fraudstream.core.errors import DEAD_LETTER_KINDS, SettingsError
from fraudstream.core.feature_set import NINE
from fraudstream.core.scores import Alert, AuditEvent, Decision, Score
from fraudstream.core.settings import Settings, load_settings
from fraudstream.core.topics import topics
from fraudstream.core.transaction import (
    MAX_VALUE_BYTES,
    Feedback,
    Label,
    Transaction,
    decode_feedback,
    decode_transaction,
)
from scorer.batch import Message, decode
from scorer.results import outputs_of
from tests.conftest import REPOSITORY
from tests.documents import (
    GUIDES,
    PAGES,
    SPAN,
    alternatives,
    anchors,
    commands,
    fences,
    leaf,
    links,
    name_of,
    rows,
    section,
    shell_lines,
    spans,
)
from verify.demo.summary import Summary, table

DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
TOPICS = DOCS / "topics.md"
PACKAGES = ("fraudstream", "producer", "scorer", "trainer", "monitoring", "verify")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "docs", "deploy")
FILES = [path.name for path in REPOSITORY.iterdir()] + [
    path.relative_to(REPOSITORY).as_posix()
    for folder in FOLDERS
    for path in (REPOSITORY / folder).rglob("*.*")
]
CODE_FILE = re.compile(r"[\w./-]+\.(?:py|lua|md|toml|sha256|sh|lock)")
USERS_OWN = {"fraudstream.toml", "./fraudstream.toml"}
"""Files in the documents that are the reader's, not the repository's."""
IN_IMAGES = "/usr/local/lib/fraudstream/"
HEADERS = {"after_feedback", "dead_letter_of", "source", "row", "pass", "restarted_ms"}

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
each_guide = pytest.mark.parametrize("page", GUIDES, ids=name_of)


def check_command(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Parse a command line by click's own parsers, types and settings included, without running it."""
    while "=" in words[0]:
        name, _, value = words[0].partition("=")
        patch.setenv(name, value)
        words = words[1:]
    program, arguments = Path(words[0]).name, words[1:]
    if program == "make":
        check_make(arguments, patch)
        return
    for word in arguments:
        if word.endswith((".parquet", ".jsonl")):
            Path(word).touch()  # some options ask for a file that exists
    command = leaf(arguments)
    assert not isinstance(command, click.Group), f"{words} names no command"
    with patch.context() as patched:
        patched.setattr(command, "callback", None)
        root(arguments, standalone_mode=False)


def check_make(words: list[str], patch: pytest.MonkeyPatch) -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    variables = re.findall(r"^(\w+) \?=", makefile, re.MULTILINE)
    values = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = [word for word in words if "=" not in word]
    assert set(wanted) <= set(targets), words
    assert values.keys() <= {"ARGS", *variables}, words
    if wanted == ["demo"] and values.get("ARGS", "...") != "...":
        check_command(["fraudstream", "demo", *shlex.split(values["ARGS"])], patch)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Be in a folder without settings, where the files of examples can be made."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@each_guide
def test_each_command_of_a_shell_block_parses_as_shown(
    page: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    for line in shell_lines(page):
        for words in commands(line):
            check_command(words, elsewhere)


@each_page
def test_commands_and_options_in_the_text_exist(page: Path, elsewhere: pytest.MonkeyPatch) -> None:
    for span in spans(page):
        program, *words = span.split()
        if program == "make" and words:
            check_make(shlex.split(span)[1:], elsewhere)
        if program != "fraudstream" or not words or "NAME=VALUE" in words:
            continue
        for line in alternatives(words):
            options = {name for p in leaf(line).params for name in (*p.opts, *p.secondary_opts)}
            shown = {word for word in line if word.startswith("--")}
            assert shown <= options | {"--help", "--set"}, span


@pytest.mark.parametrize(
    "line",
    [
        "fraudstream repaly",
        "fraudstream stack",
        "fraudstream replay --sped 60x",
        "fraudstream train --days 0",
        "fraudstream --set partition=2 ledger",
        "FRAUDSTREAM_PARTITION=2 fraudstream ledger",
        "make demonstrate",
        'make demo ARGS="--exti"',
    ],
)
def test_a_wrong_command_would_be_found(line: str, elsewhere: pytest.MonkeyPatch) -> None:
    (words,) = commands(line)
    with pytest.raises((AssertionError, click.ClickException, SettingsError)):
        check_command(words, elsewhere)


def test_the_commands_of_a_shell_line_are_told_from_its_grammar() -> None:
    line = "until .venv/bin/fraudstream ledger | grep ' 0 waiting'; do sleep 1; done  # make x"
    assert list(commands(line)) == [[".venv/bin/fraudstream", "ledger"]]
    assert list(commands("A=1 fraudstream scorer & make test")) == [
        ["A=1", "fraudstream", "scorer"],
        ["make", "test"],
    ]


def test_the_readme_lists_every_command() -> None:
    listed = {span.split()[1] for span in spans(README) if span.startswith("fraudstream ")}
    assert listed >= COMMANDS.keys()


@each_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    for code in (*spans(page), *fences(page, "")):
        for word in re.split(r"[\s()*,`]+", code):
            if CODE_FILE.fullmatch(word) and word not in USERS_OWN:
                name = word.removeprefix(IN_IMAGES)
                assert any(f"/{file}".endswith(f"/{name}") for file in FILES), word
    for span in spans(page):
        if re.fullmatch(rf"({'|'.join(FOLDERS)})/[\w/.-]*", span):
            assert (REPOSITORY / span).exists(), span


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_index_leads_to_every_page() -> None:
    linked = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - linked == {
        "README.md"
    }


def test_decisions_are_numbered_in_a_row() -> None:
    pages = sorted((DOCS / "adr").glob("*.md"))
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04}-")
        assert re.match(rf"# 0*{number}\b", page.read_text()), page.name


@each_guide
def test_a_table_of_rates_or_durations_has_its_command_beside_it(page: Path) -> None:
    for text in re.split(r"^## ", page.read_text(), flags=re.MULTILINE):
        measured = re.search(r"^\|.*\d ?(/s|ms|us|s)( of CPU)? \|", text, re.MULTILINE)
        named = [span for span in SPAN.findall(text) if is_command(span)]
        assert not measured or named, text.splitlines()[0]


def is_command(span: str) -> bool:
    """Tell whether a code span is a command line; that of a command may leave out `fraudstream`."""
    program, _, rest = span.partition(" ")
    return bool(rest) and program in {
        "fraudstream",
        "python",
        ".venv/bin/python",
        "make",
        *COMMANDS,
    }


@each_page
def test_no_page_names_a_folder_of_a_machine(page: Path) -> None:
    assert not re.search(r"(?<![\w.}])/(home|root|tmp|work|Users|var)/", page.read_text())


def test_the_readme_is_short_and_shows_the_summary_that_the_demo_prints() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    shown = text.partition("<!-- output of drift:")[2].partition("<!-- end of output -->")[0]
    numbers: dict[str, object] = {field.name: 0 for field in msgspec.structs.fields(Summary)}
    retrained = {"recall_without": 0, "gain": 0, "gain_low": 0, "gain_high": 0}
    numbers |= {"scenario": "drift", "periods": (), "outages": (), "retraining": retrained}
    for name in table(msgspec.convert(numbers, Summary)).columns[0].cells:
        assert str(name) in shown, "refresh it: .venv/bin/python docs/demo_output.py"


def test_the_readme_s_consumer_of_alerts_reads_committed_records_only() -> None:
    (example,) = fences(README, "python")
    calls = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
    (made,) = [call for call in calls if ast.unparse(call.func) == "KafkaConsumer"]
    given = {each.arg: ast.literal_eval(each.value) for each in made.keywords}
    assert given.keys() <= KafkaConsumer.DEFAULT_CONFIG.keys()
    assert given["isolation_level"] == "read_committed"
    assert KafkaConsumer.DEFAULT_CONFIG["isolation_level"] == "read_uncommitted"


def test_every_setting_stands_in_operations_with_its_default() -> None:
    found = rows(section(DOCS / "operations.md", "Settings"))
    fields = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert found.keys() == fields.keys()
    for name, default in fields.items():
        assert found[name][0].strip("`") == (str(default) or "empty"), name


def test_the_settings_file_of_the_example_is_valid() -> None:
    (example,) = fences(DOCS / "operations.md", "toml")
    assert load_settings(example, {}).partitions == 16


def test_every_feature_is_explained() -> None:
    assert set(NINE.features) <= set(spans(DOCS / "features.md"))


def fields_of(record: type[msgspec.Struct]) -> set[str]:
    """Return the names of a struct's fields, those of a struct within it as `outer.inner`."""
    names = set()
    for field in msgspec.structs.fields(record):
        names.add(field.name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            names |= {f"{field.name}.{inner}" for inner in fields_of(field.type)}
    return names


@pytest.mark.parametrize(
    ("topic", "record"),
    [
        ("transactions", Transaction),
        ("feedback", Feedback),
        ("scores", Score),
        ("audit", AuditEvent),
    ],
)
def test_a_topic_s_tables_name_each_field_and_nothing_else(
    topic: str, record: type[msgspec.Struct]
) -> None:
    named = rows(section(TOPICS, f"`{topic}`")).keys()
    assert fields_of(record) <= named
    assert named - fields_of(record) <= HEADERS


def test_topics_names_what_an_alert_has_more_than_a_score() -> None:
    assert rows(section(TOPICS, "`alerts`")).keys() == fields_of(Alert) - fields_of(Score)


def test_topics_names_the_words_and_bounds_that_are_allowed() -> None:
    text = TOPICS.read_text()
    events = get_args(AuditEvent.__annotations__["event"])
    for word in (*get_args(Label), *get_args(Decision), *events):
        assert f"`{word}`" in text
    assert f"{MAX_VALUE_BYTES:,} bytes" in text


def test_topics_lists_the_topics_with_their_partitions_and_retention() -> None:
    found = rows(TOPICS.read_text().partition("\n## ")[0])
    assert [topic.name for topic in topics()] == list(found)
    for topic in topics(7):
        partitions = "1" if topic.partitions == 1 else "`partitions` (8)"
        kept = "for ever" if topic.config["retention.ms"] == "-1" else "?"
        assert (found[topic.name][0], found[topic.name][-1]) == (partitions, kept), topic.name


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("transaction", Transaction),
        ("feedback", Feedback),
        ("score", Score),
        ("alert", Alert),
        ("audit", AuditEvent),
    ],
)
def test_an_example_record_decodes_and_has_every_field(
    name: str, record: type[msgspec.Struct]
) -> None:
    (text,) = fences(TOPICS, f"json {name}")
    fields = msgspec.json.decode(text)
    assert fields.keys() == {field.name for field in msgspec.structs.fields(record)}
    assert msgspec.to_builtins(msgspec.json.decode(text, type=record)) == fields


def test_the_examples_of_input_are_taken_by_the_scorer() -> None:
    (transaction,) = fences(TOPICS, "json transaction")
    (feedback,) = fences(TOPICS, "json feedback")
    paid, answered = decode_transaction(transaction.encode()), decode_feedback(feedback.encode())
    assert (answered.transaction_id, answered.event_time_ms, answered.entities) == (
        paid.transaction_id,
        paid.event_time_ms,
        paid.entities,
    )


def test_topics_names_the_headers_and_kinds_of_dead_letters() -> None:
    message = confluent_kafka.Message(
        topic="transactions", partition=0, offset=0, key=b"c", value=b"{", timestamp=(1, 0)
    )
    batch = decode([cast("Message", message)], {0: 0}, polled_at_ms=0)
    (letter,) = outputs_of(batch, [], model=None)
    named = rows(section(TOPICS, "`dead-letters`")).keys()
    assert named == {name for name, _ in letter.headers} | set(DEAD_LETTER_KINDS)
