from __future__ import annotations

from pathlib import Path

import pytest

from ripieno import files
from ripieno.errors import LibraryError
from ripieno.profiles.importers import import_profiles
from ripieno.types import BatchProfile, Device, Profile

GPU, OTHER, CPU = Device("cuda:0", "v100", 99), Device("cuda:1", "t4", 99), Device("cpu:0", "cpu-2-cores", 99, (0, 1))
HEAD = "model,infer_samples_per_sec,infer_batch_size,param_count,infer_macts\n"


def write(path: Path, kind: str, *members: str) -> Path:
    profiles = [Profile(m, kind, "onnx", (BatchProfile(8, 0.1, 0.0, 5),)) for m in members]
    files.write_json(path, profiles)  # type: ignore[arg-type]
    return path


def table(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(HEAD + "small,1000,256,10,2\nlarge,10,32,100,90\n")
    return path


def test_profile_files_have_their_own_kind_or_the_given_one(tmp_path: Path) -> None:
    path = write(tmp_path / "h100.json", "h100", "a", "b")
    found = import_profiles([str(path)], [GPU])
    assert {k: set(v) for k, v in found.items()} == {"h100": {"a", "b"}}
    found = import_profiles([f"v100={path}"], [GPU], ["b"])
    assert {k: set(v) for k, v in found.items()} == {"v100": {"b"}}
    assert found["v100"]["b"].device == "v100"


def test_a_runs_folder_has_all_its_kinds_and_later_words_override(tmp_path: Path) -> None:
    write(tmp_path / "run" / "profiles" / "v100.json", "v100", "a")
    write(tmp_path / "run" / "profiles" / "cpu-2-cores.json", "cpu-2-cores", "a")
    assert set(import_profiles([str(tmp_path / "run")], [GPU, CPU])) == {"v100", "cpu-2-cores"}
    files.write_json(tmp_path / "x.json", [Profile("a", "v100", "other", ())])  # type: ignore[arg-type]
    found = import_profiles([str(tmp_path / "run"), str(tmp_path / "x.json")], [GPU])
    assert found["v100"]["a"].backend == "other"


def test_a_table_is_of_the_one_gpu_or_of_the_cpu(tmp_path: Path) -> None:
    gpu = table(tmp_path, "benchmark-infer-amp-nchw-rtx3090.csv")
    cpu = table(tmp_path, "benchmark-infer-fp32-nchw-pt240-cpu-i9.csv")
    found = import_profiles([str(gpu), str(cpu)], [GPU, CPU], ["small"])
    assert {k: set(v) for k, v in found.items()} == {"v100": {"small"}, "cpu-2-cores": {"small"}}
    assert set(import_profiles([f"t4={gpu}"], [GPU, OTHER], ["large"])) == {"t4"}


def test_what_cannot_be_meant_is_one_line(tmp_path: Path) -> None:
    gpu = table(tmp_path, "benchmark-infer-amp-nchw-rtx3090.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    write(tmp_path / "full" / "v100.json", "v100", "a")
    for word, devices, members, message in (
        (f"h100={gpu}", [GPU], ["small"], "unknown device kind 'h100': expected one of v100"),
        (str(gpu), [GPU, OTHER], ["small"], r"2 kinds of GPU \(v100, t4\): pass KIND="),
        (str(gpu), [CPU], ["small"], "no GPU: pass KIND="),
        (str(gpu), [GPU], None, "select those of the ensemble with --members"),
        (str(gpu), [GPU], ["x"], "no complete row for network 'x'"),
        (str(tmp_path / "empty"), [GPU], None, "has no profiles: run `ripieno measure"),
        (f"v100={tmp_path / 'full'}", [GPU], None, "pass v100=FILE with one of its files"),
        (str(tmp_path / "absent.json"), [GPU], None, "does not exist"),
    ):
        with pytest.raises(LibraryError, match=message) as caught:
            import_profiles([word], devices, members)
        assert "\n" not in str(caught.value)
