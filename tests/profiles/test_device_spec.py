from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.errors import AllocationError
from ripieno.profiles.device_spec import find_devices, is_description, parse_spec, read_devices

GB = 10**9


def test_a_line_describes_a_cluster() -> None:
    devices = parse_spec("4x V100-16GB, 1x cpu 32 cores 256GB")
    assert [d.name for d in devices] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cpu:0"]
    assert {(d.kind, d.memory) for d in devices[:4]} == {("v100-16gb", 16 * GB)}
    assert (devices[4].kind, devices[4].memory, devices[4].cores) == ("cpu-32-cores", 256 * GB, tuple(range(32)))


def test_gpus_come_first_and_models_may_differ() -> None:
    devices = parse_spec("cpu 2 cores, rtx-4090 24GiB, 2 x Tesla T4 16GB")
    assert [(d.name, d.kind) for d in devices] == [
        ("cuda:0", "rtx-4090-24gib"),
        ("cuda:1", "tesla-t4-16gb"),
        ("cuda:2", "tesla-t4-16gb"),
        ("cpu:0", "cpu-2-cores"),
    ]
    assert devices[0].memory == 24 << 30


def test_a_cpu_has_four_gib_a_core_unless_said() -> None:
    assert parse_spec("1x cpu 32 cores")[0].memory == 128 << 30


def test_cpus_of_several_machines_have_cores_of_their_own() -> None:
    first, second = parse_spec("2x AMD EPYC 9R14 4 cores 16GB")
    assert (first.kind, first.cores, second.cores) == ("amd-epyc-9r14-4-cores", (0, 1, 2, 3), (4, 5, 6, 7))


FOUR = parse_spec("4x V100-16GB, 1x cpu 32 cores")


@pytest.mark.parametrize(
    "text",
    [
        "4xV100-16GB,1x CPU 32cores",
        "4 × V100-16GB; cpu 32 Cores",
        "4 V100-16GB + 1 cpu 32 cores",
        "V100-16GB x4 and 32-core cpu",
        "4X V100-16GB\n\ncpu-32-cores,",
    ],
)
def test_other_spellings_mean_the_same(text: str) -> None:
    assert is_description(text)
    assert parse_spec(text) == FOUR


def test_a_model_of_digits_is_no_count() -> None:
    assert [(d.kind, d.memory) for d in parse_spec("2x 4090 24G, 980 Ti 6GB")] == [
        ("4090-24g", 24 * GB),
        ("4090-24g", 24 * GB),
        ("980-ti-6gb", 6 * GB),
    ]


TOML = """
[[device]]
count = 2
kind = "nvidia-h200"
memory = "141GB"

[[device]]
kind = "amd-epyc"
cores = 2
memory = 1000
"""


def test_the_same_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.json").write_text(
        '[{"count": 2, "kind": "nvidia-h200", "memory": "141GB"}, {"kind": "amd-epyc", "cores": 2, "memory": 1000}]'
    )
    found = read_devices(tmp_path / "a.toml")
    assert found == read_devices(tmp_path / "b.json")
    assert [(d.name, d.kind, d.memory) for d in found] == [
        ("cuda:0", "nvidia-h200", 141 * GB),
        ("cuda:1", "nvidia-h200", 141 * GB),
        ("cpu:0", "amd-epyc-2-cores", 1000),
    ]
    (tmp_path / "one.json").write_text('{"count": 2, "kind": "nvidia-h200", "memory": "141GB"}')
    assert read_devices(tmp_path / "one.json") == found[:2]
    (tmp_path / "c.txt").write_text("# ours\n2x V100-16GB\ncpu 2 cores  # old\n")
    assert [d.kind for d in find_devices(str(tmp_path / "c.txt"))] == ["v100-16gb", "v100-16gb", "cpu-2-cores"]


YAML = """
# ours
device:
  - {count: 2, kind: nvidia-h200, memory: 141GB}
  - amd-epyc 2 cores 1kB
"""


def test_yaml_may_mix_tables_and_words(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="needs the extra `yaml`")
    (tmp_path / "a.yaml").write_text(YAML)
    (tmp_path / "b.toml").write_text(TOML)
    assert find_devices(str(tmp_path / "a.yaml")) == find_devices(str(tmp_path / "b.toml"))
    (tmp_path / "c.yml").write_text("4x V100-16GB, 1x cpu 32 cores")
    assert len(find_devices(str(tmp_path / "c.yml"))) == 5
    (tmp_path / "CLUSTER.YAML").write_text("- 4x V100-16GB, 1x cpu 32 cores")
    assert find_devices(str(tmp_path / "CLUSTER.YAML")) == FOUR
    (tmp_path / "d.yaml").write_text("device: [")
    with pytest.raises(AllocationError, match=r"cannot read devices from .*d\.yaml: while parsing") as caught:
        find_devices(str(tmp_path / "d.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4x V100", "GPU 'V100' has no memory size"),
        ("cpu", "CPU 'cpu' has no number of cores"),
        ("", "no devices are described"),
        ("0x V100-16GB", "count 0"),
        ("1.5x V100-16GB", "cannot parse device '1.5x V100-16GB'"),
        ("-1x V100-16GB", "cannot parse device '-1x V100-16GB'"),
        ("4x V100-16GB 1x cpu 32 cores", "a comma between devices"),
        ("A100 40GB 80GB", "cannot parse device 'A100 40GB 80GB'"),
        ("V100-0GB", "memory '0GB' is invalid"),
        ("4x cpu 16GB", "CPU 'cpu 16GB' has no number of cores"),
        ("cpu 2.5 cores", "has no number of cores"),
        ("cpu 9999999999 cores", "cores 9999999999 of 'cpu'"),
        ("cpu 0 cores", "cores 0"),
    ],
)
def test_what_is_missing_is_asked_for(text: str, message: str) -> None:
    with pytest.raises(AllocationError, match=message):
        parse_spec(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.toml", "device = ["),
        ("a.toml", "x = 1"),
        ("a.json", "{"),
        ("a.json", '[{"kind": "x", "memory": "much"}]'),
        ("a.json", '[{"kind": "x", "memory": "1GB", "count": 1.5}]'),
        ("a.json", '[{"kind": "x", "memory": "1GB", "count": true}]'),
        ("a.json", '[{"kind": "x", "memory": "1GB", "number": 4}]'),
        ("a.json", '[{"memory": "1GB", "count": 2}]'),
        ("a.json", '[{"kind": "cpu", "memory": "1GB"}]'),
        ("a.txt", "nonsense"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(AllocationError, match=rf"{name}: ") as caught:
        read_devices(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(AllocationError, match=r"absent\.toml"):
        find_devices("absent.toml")


def test_this_machines_devices_are_no_description() -> None:
    assert not any(map(is_description, ("auto", "cpu", "cpu:2", "cuda:0,cpu")))
    assert all(map(is_description, ("4x V100-16GB", "cpu 32 cores", "2x a 1gib")))
    assert find_devices("cpu")[0].name == "cpu:0"
