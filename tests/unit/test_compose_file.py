"""docker-compose.yml and the files beside it, held against what docs/containers.md promises."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from fraudstream.cli import COMMANDS
from fraudstream.core.settings import ENVIRONMENT_PREFIX, Settings
from fraudstream.stack.kafka_server import LOG4J2, _kafka_properties
from tests.documents import SPAN, fences, leaf, rows, section

REPOSITORY = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "deploy/Dockerfile").read_text()
RUNBOOKS = REPOSITORY / "docs/runbooks.md"
PUBLISHED = {"mlflow", "prometheus", "grafana"}
OF_THE_NETWORK = {
    "controller.quorum.voters",
    "listeners",
    "advertised.listeners",
    "log.dirs",
}
each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_a_service_has_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in {"", "0", "root"}
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))


@each_service
def test_a_service_has_limits_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["cpus"] <= 2
    assert service["restart"] == ("no" if name == "topics" else "unless-stopped")
    assert service["profiles"]


@each_service
def test_a_service_says_how_it_is(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check.get("disable") is True if name == "topics" else check["test"]
    assert "start_interval" not in check, "needs a newer engine than preflight.py asks for"


@each_service
def test_an_image_is_a_variable_with_a_pinned_default(name: str) -> None:
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:[\w.-]+\}", SERVICES[name]["image"])
    assert ":latest" not in SERVICES[name]["image"]


@each_service
def test_only_three_are_published_and_on_loopback(name: str) -> None:
    ports = SERVICES[name].get("ports", [])
    assert bool(ports) == (name in PUBLISHED)
    assert all(port.startswith("127.0.0.1:") for port in ports)
    networks = {"inside", "published"} if name in PUBLISHED else {"inside"}
    assert set(SERVICES[name]["networks"]) == networks
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_no_secret_stands_in_the_file() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    for line in text.splitlines():
        if re.search(r"password", line, re.IGNORECASE):
            assert re.search(r"_FILE|/run/secrets/|secrets: \[|_password:$|SECRETS_DIR", line), line
    assert ".secrets/" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_services_begin_when_what_they_need_is_healthy() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = "service_completed_successfully"
            wanted = ends if needed == "topics" else "service_healthy"
            assert how["condition"] == wanted, (name, needed)
    assert set(SERVICES["scorer"]["depends_on"]) == {"topics", "redis", "mlflow"}


@each_service
def test_a_service_runs_a_command_of_the_product(name: str) -> None:
    image = SERVICES[name]["image"]
    if "SERVICE_IMAGE" in image or "TRAINER_IMAGE" in image:
        command = SERVICES[name]["command"][0]
        assert command in COMMANDS or SERVICES[name]["profiles"] == [command]


def test_the_settings_in_the_file_are_settings() -> None:
    known = {ENVIRONMENT_PREFIX + name.upper() for name in Settings.__struct_fields__}
    used = {
        name
        for service in SERVICES.values()
        for name in service.get("environment", {})
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    assert used
    assert used <= known


def test_kafka_is_configured_as_in_the_embedded_stack() -> None:
    def parsed(text: str) -> dict[str, str]:
        lines = (line for line in text.splitlines() if line and not line.startswith("#"))
        return dict(line.split("=", 1) for line in lines)

    ours = parsed((REPOSITORY / "deploy/kafka/server.properties").read_text())
    embedded = parsed(_kafka_properties(Path("data"), 1, 2))
    assert ours.keys() == embedded.keys()
    assert {k: v for k, v in ours.items() if k not in OF_THE_NETWORK} == {
        k: v for k, v in embedded.items() if k not in OF_THE_NETWORK
    }
    assert (REPOSITORY / "deploy/kafka/log4j2.properties").read_text() == LOG4J2


def test_prometheus_asks_every_service_of_this_project() -> None:
    text = (REPOSITORY / "deploy/prometheus/prometheus.yml").read_text()
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    serving = {
        name for name, each in SERVICES.items() if "--metrics-port" in each.get("command", [])
    }
    assert serving == set(jobs)
    for name, job in jobs.items():
        assert job["dns_sd_configs"][0]["names"] == [name]
        command = SERVICES[name]["command"]
        port = command[command.index("--metrics-port") + 1]
        assert int(port) == job["dns_sd_configs"][0]["port"]


def test_the_trainer_s_memory_is_bounded_by_a_window() -> None:
    command = SERVICES["trainer"]["command"]
    days = command[command.index("--days") + 1]
    assert re.fullmatch(r"\$\{TRAIN_DAYS:-\d+\}", days)


def in_containers() -> dict[str, list[str]]:
    """Return the table of the runbooks: commands in containers, by those on one machine."""
    return {
        here: SPAN.findall(there)
        for here, (there,) in rows(section(RUNBOOKS, "In containers")).items()
    }


def check_compose(line: str) -> None:
    """Fail unless a `docker compose` command names a service that is there, and runs what that has."""
    program, compose, verb, *words = shlex.split(line)
    assert (program, compose) == ("docker", "compose"), line
    if verb in {"ps", "up"} and words in ([], ["--detach"]):
        return
    name = words.pop(0) if verb == "exec" else words.pop()
    assert verb in {"exec", "logs", "restart", "up"}, line
    service = SERVICES[name]
    if verb == "exec":
        check_program(service, *words)


def check_program(service: dict[str, Any], program: str, *words: str) -> None:
    if program == "python3":
        script, port, *path = words
        copied = re.findall(r"^COPY (.*) /usr/local/lib/fraudstream/$", DOCKERFILE, re.MULTILINE)
        scripts = {Path(each).name for each in copied[0].split()}
        assert script in {f"/usr/local/lib/fraudstream/{each}" for each in scripts}
        assert port == service["command"][service["command"].index("--metrics-port") + 1]
        assert path in ([], ["/metrics"], ["/livez"], ["/model"])
        return
    assert program == "fraudstream"
    if words != ("...",):
        assert not isinstance(leaf(list(words)), click.Group), words
    if words[0] in {"train", "trainer"}:
        assert service is SERVICES["trainer"], "the other images lack scikit-learn"


def test_what_the_runbooks_say_of_containers_is_there() -> None:
    lines = [line for found in in_containers().values() for line in found]
    assert len(lines) > 5
    for line in lines:
        if line.startswith("docker"):
            check_compose(line)


@pytest.mark.parametrize(
    "line",
    [
        "docker compose exec worker fraudstream ledger",
        "docker compose exec scorer fraudstream train",
        "docker compose exec scorer curl http://127.0.0.1:8000/readyz",
        "docker compose exec scorer python3 /usr/local/lib/fraudstream/healthy.py 8000",
        "docker compose exec scorer python3 /usr/local/lib/fraudstream/ready.py 6066",
        "docker compose logs kafkas",
    ],
)
def test_a_command_that_no_container_has_would_be_found(line: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check_compose(line)


def test_each_command_of_the_runbooks_has_one_in_containers() -> None:
    told = in_containers()
    used = {line for body in fences(RUNBOOKS, "console") for line in body.splitlines()}
    for line in used:
        assert any(line.startswith(here.partition("...")[0].strip()) for here in told), line
    ports = {each for line in used for each in re.findall(r"127\.0\.0\.1:(\d+)/", line)}
    assert ports <= {each for here in told for each in re.findall(r"127\.0\.0\.1:(\d+)/", here)}
    assert "docker compose exec scorer` before" not in RUNBOOKS.read_text()


def test_a_health_check_asks_the_port_that_is_served() -> None:
    for name, service in SERVICES.items():
        if "--metrics-port" in service.get("command", []):
            port = service["command"][service["command"].index("--metrics-port") + 1]
            assert service["healthcheck"]["test"][-1] == port, name


def test_the_stand_ins_replace_every_image_that_would_be_pulled_except_grafanas() -> None:
    given = dict(
        line.split("=", 1)
        for line in (REPOSITORY / "deploy/standin/images.env").read_text().splitlines()
        if "_IMAGE=" in line
    )
    pulled = {
        re.sub(r"\$\{(\w+):.*", r"\1", service["image"])
        for service in SERVICES.values()
        if "build" not in service
    }
    assert pulled | {"PYTHON_IMAGE"} == given.keys() | {"GRAFANA_IMAGE"}
