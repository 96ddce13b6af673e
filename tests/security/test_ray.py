"""On a machine that others use too: a cluster of one's own that they can neither reach nor put in its place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dailies.curation.errors import UsageError
from dailies.pipelines import clusters, private_cluster
from dailies.pipelines.import_path import named_path, safe_path

ENGINE = Path(__file__).resolve().parents[2] / "pipelines"

# ---- without a cluster ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("named", "address"), [("", None), ("local", None), ("1.2.3.4:6379", "1.2.3.4:6379")])
def test_a_cluster_is_the_one_that_is_named_or_ones_own(
    named: str, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", named)
    assert clusters.address() == address


def test_the_cluster_that_anyone_can_name_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(UsageError, match=r"^RAY_ADDRESS=auto: .*; give HOST:PORT"):
        clusters.address()


@pytest.mark.parametrize("place", ["", "a" * 60])
def test_the_folder_is_the_users_own_short_and_goes(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place:
        (tmp_path / place).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
    with private_cluster.folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert not folder.is_relative_to(tmp_path)
        rays = private_cluster.options(folder)["_temp_dir"]
        session = f"{rays}/session_2026-11-30_09-20-11_770437_4194304/sockets/plasma_store"
        assert len(session) <= private_cluster.LONGEST, "or a Unix socket does not fit"
        (folder / "r").mkdir(mode=0o777)
    assert not folder.exists()


def test_the_token_is_new_and_stays_in_no_environment_but_the_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "lib", ".", "/opt/lib", ""]))
    tokens = set()
    for _ in range(2):
        with private_cluster.environment():
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert os.environ["PYTHONPATH"] == "/opt/lib"
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert os.environ["PYTHONPATH"].startswith(os.pathsep)
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


def test_no_way_of_writing_the_working_directory_is_imported_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    ways = ["", ".", "sub/..", str(tmp_path), str(tmp_path / "link"), f"{tmp_path}/"]
    assert safe_path([*ways, "/usr", "nowhere"]) == ["/usr"]
    assert named_path(os.pathsep.join(["", ".", "sub/..", "/usr"])) == "/usr"


@pytest.mark.parametrize(("script", "left_out"), [(".", True), ("..", False)])
def test_a_script_beside_the_videos_does_not_bring_its_folder(
    script: str, left_out: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray puts the folder of a script, which may be the working directory, on its workers' path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script}/script.py"])
    config = private_cluster.job_config()
    assert config._client_job, "which leaves the working directory itself out"
    assert config._runtime_env_has_working_dir() is left_out


@pytest.mark.parametrize("how", ["-m", "PYTHONPATH"])
def test_the_command_line_imports_nothing_from_the_working_directory(how: str, tmp_path: Path) -> None:
    for name in ("numpy", "pyarrow", "typer", "yaml", "pydantic", "ray"):
        if how == "-m" or name in ("numpy", "pyarrow"):  # Python itself has begun by then
            (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    command = [sys.executable, *(["-m", "dailies"] if how == "-m" else [str(Path(sys.executable).parent / "dailies")])]
    environment = os.environ | ({"PYTHONPATH": os.pathsep} if how == "PYTHONPATH" else {})
    done = subprocess.run(
        [*command, "sql", "nothing", "select 1"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "the wrong" not in done.stdout + done.stderr
    assert "there is no dataset" in done.stderr


# ---- with one -------------------------------------------------------------------------------------------------------

CLIENT = """
from ray._raylet import GcsClient
try:
    GcsClient(address={address!r}, cluster_id=None)
    print("joined")
except Exception as error:
    print("refused", type(error).__name__)
"""

SCRIPT = """
import json, os, subprocess, sys, glob, socket, struct
from dailies.pipelines.import_path import safe_path
sys.path[:] = safe_path(sys.path)  # as the command line does
from dailies.pipelines import engine as engines

def below(root):
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            text = open(path).read()
        except OSError:
            continue
        parents[int(text.split()[0])] = int(text.rsplit(")", 1)[1].split()[1])
    found = {root}
    while new := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= new
    return found

def listening(pids):
    inodes = set()
    for pid in pids:
        for fd in glob.glob(f"/proc/{pid}/fd/*"):
            try:
                link = os.readlink(fd)
            except OSError:
                continue
            inodes.add(link[8:-1]) if link.startswith("socket:[") else None
    addresses = []
    for family in ("tcp", "tcp6", "udp", "udp6"):
        for line in open(f"/proc/net/{family}").read().splitlines()[1:]:
            part = line.split()
            if part[9] in inodes and (part[3] == "0A" or family.startswith("udp")):
                raw = bytes.fromhex(part[1].split(":")[0])
                words = struct.unpack(f"<{len(raw) // 4}I", raw)
                packed = struct.pack(f">{len(words)}I", *words)
                addresses.append(socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed))
    return addresses

seen = []
with engines.session("ray") as session:
    session.start_ray()
    import ray

    @ray.remote
    def look():
        import os, sys
        return {"path": sys.path, "cwd": os.getcwd(), "mode": os.environ.get("RAY_AUTH_MODE"),
            "token": os.environ.get("RAY_AUTH_TOKEN")}

    facts = ray.get(look.remote())
    address = ray.get_runtime_context().gcs_address
    folder = ray._private.worker._global_node.temp_dir
    facts |= {"address": address, "folder": folder, "above": oct(os.stat(os.path.dirname(folder)).st_mode & 0o777)}
    facts["listening"] = listening(below(os.getpid()))
    facts["ours"] = sorted(name for name in os.environ if name.startswith("RAY_AUTH"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    clean |= {"HOME": sys.argv[1], "RAY_TMPDIR": sys.argv[1]}
    client = sys.argv[2].format(address=address)
    for name, more in {
        "without": {"RAY_AUTH_MODE": "disabled"},
        "wrong": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        "right": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": facts["token"]},
    }.items():
        done = subprocess.run(
            [sys.executable, "-P", "-c", client], env=clean | more, capture_output=True, text=True, timeout=100
        )
        facts[name] = done.stdout.strip() or f"died with {done.returncode}"
facts["left"] = os.path.exists(os.path.dirname(folder))
with engines.session("ray") as session:  # and once more in the same process, under another token
    session.start_ray()
    ray.get(look.remote())
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on Ray in a folder full of traps, and beside a cluster's address that somebody else left."""
    here, shared = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("t")
    for name in ("numpy", "pyarrow", "sitecustomize", "usercustomize", "av", "colorama", "psutil", "packaging"):
        # The driver's own Python obeys PYTHONPATH before any line of ours; its workers must not.
        (here / f"{name}.py").write_text("import os, sys\nif 'ray/' in ' '.join(sys.orig_argv): open('RAN', 'a')\n")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        (shared / "ray").mkdir()
        (shared / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{mute.getsockname()[1]}")
        script = shared / "script.py"
        script.write_text(SCRIPT)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            [sys.executable, "-P", script, str(shared), CLIENT],
            cwd=here,
            env=environment | {"PYTHONPATH": os.pathsep, "RAY_TMPDIR": str(shared / "ray")},
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "here": here, "shared": shared}


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(facts: Any) -> None:
    assert len(facts["listening"]) > 3
    assert set(facts["listening"]) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.slow
def test_who_has_no_token_is_refused(facts: Any) -> None:
    assert facts["mode"] == "token"
    assert facts["without"] == "refused AuthenticationError"
    assert facts["wrong"] == "refused AuthenticationError"
    assert facts["right"] == "joined", "so it is the token that opens it"
    assert facts["ours"] == [], "nor has what this process starts otherwise"


@pytest.mark.slow
def test_its_folder_is_closed_to_others_and_goes(facts: Any) -> None:
    assert facts["above"] == "0o700"
    assert not facts["left"]
    assert sorted(path.name for path in (facts["shared"] / "ray").iterdir()) == ["ray_current_cluster"]


@pytest.mark.slow
def test_an_address_that_somebody_left_is_not_followed(facts: Any) -> None:
    assert facts["address"].startswith("127.0.0.1:")
    assert facts["address"] != (facts["shared"] / "ray" / "ray_current_cluster").read_text()


@pytest.mark.slow
def test_workers_import_nothing_from_the_working_directory(facts: Any) -> None:
    assert facts["cwd"] == str(facts["here"])
    assert str(facts["here"]) not in facts["path"]
    assert "" not in facts["path"]
    assert not (facts["here"] / "RAN").exists()


def test_ray_is_started_in_one_place() -> None:
    starting = {path.name for path in ENGINE.rglob("*.py") if "ray.init(" in path.read_text()}
    assert starting == {"clusters.py"}
