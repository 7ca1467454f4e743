"""Kafka's jars are exactly the committed ones, or the stack does not start."""

import hashlib
from pathlib import Path

import pytest

from fraudstream.core.errors import FraudstreamError, Refused, SettingsError
from fraudstream.stack.kafka_jars import Jar, checked_folder, install, listed_jars

CONTENT = b"a jar"
JAR = Jar(hashlib.sha256(CONTENT).hexdigest(), "org/example/tool/1.0/tool-1.0.jar")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the one right jar."""
    path = tmp_path / "kafka" / JAR.path
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return tmp_path / "kafka"


def test_the_committed_list_names_each_jar_once_with_a_digest() -> None:
    jars = listed_jars()
    assert len({Path(jar.path).name for jar in jars}) == len(jars) > 40
    assert all(len(jar.sha256) == 64 and jar.path.endswith(".jar") for jar in jars)
    assert any(jar.path.endswith("kafka_2.13-4.2.1.jar") for jar in jars)


def test_right_jars_are_found_without_any_network(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    installed = install(folder, [JAR], on_progress=lambda ready, total: seen.append((ready, total)))
    assert installed == checked_folder(folder, [JAR]) == folder
    assert seen == [(1, 1)]


def test_a_jar_with_another_digest_is_refused_by_name(folder: Path) -> None:
    (folder / JAR.path).write_bytes(CONTENT + b"!")
    with pytest.raises(Refused, match=r"tool-1\.0\.jar has SHA-256"):
        checked_folder(folder, [JAR])


def test_a_missing_jar_names_the_folder_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(FraudstreamError, match=rf"missing in {tmp_path}.*python -m fraudstream"):
        checked_folder(tmp_path, [JAR])


def test_what_an_interrupted_download_left_is_removed(folder: Path) -> None:
    left = folder / ".partial-killed"
    left.mkdir()
    (left / "half.jar").write_bytes(b"ha")
    install(folder, [JAR])
    assert not left.exists()
    assert checked_folder(folder, [JAR]) == folder


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="no folder for Kafka's jars"):
        install(tmp_path / "file" / "kafka", [JAR])
