"""Both forms of the compose file, with the images that would be pulled and with stand-ins, are valid."""

import json

import pytest

from benchmarks.container_system import said

pytestmark = pytest.mark.containers


@pytest.mark.parametrize("files", [(), ("--env-file", "deploy/standin/images.env")])
@pytest.mark.parametrize("profile", ["core", "core,observability", "core,prometheus,demo", "*"])
@pytest.mark.usefixtures("engine")
def test_docker_compose_accepts_the_file(files: tuple[str, ...], profile: str) -> None:
    profiles = [part for name in profile.split(",") for part in ("--profile", name)]
    config = said("docker", "compose", *files, *profiles, "config", "--format", "json")
    images = {each["image"] for each in json.loads(config)["services"].values()}
    standin = {image for image in images if image.startswith("fraudstream-standin/")}
    assert bool(standin) == bool(files)
