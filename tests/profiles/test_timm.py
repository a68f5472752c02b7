from __future__ import annotations

from pathlib import Path

import pytest

from ripieno.errors import LibraryError
from ripieno.profiles.timm import CARD, FLOOR, LIVE, timm_profiles

HEAD = (
    "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,infer_gmacs,infer_macts\n"
)
ROWS = "small,224,1000,256,256,10,1,2\nlarge,224,10,3200,32,100,50,90\nbroken,224,10,3200,32,100,,\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark-infer-amp-nchw-rtx3090.csv"
    path.write_text(HEAD + ROWS)
    return path


def test_the_measured_batch_is_as_measured_and_others_say_that_they_are_estimates(table: Path) -> None:
    found = timm_profiles(table, "rtx-3090")["large"]
    assert [p.batch_size for p in found.points] == [1, 8, 32]
    assert (found.at(32).seconds, found.at(32).spread) == (pytest.approx(3.2), 0)
    assert (found.at(8).seconds, found.at(8).spread) == (pytest.approx(0.8), 1)
    assert (found.device, found.backend) == ("rtx-3090", "timm")


def test_a_gpu_batch_takes_its_launches_at_least(table: Path) -> None:
    assert timm_profiles(table, "rtx-3090")["small"].at(1).seconds == FLOOR


def test_bytes_are_parameters_and_live_activations(table: Path) -> None:
    found = timm_profiles(table, "rtx-3090", ["large"])["large"]
    assert found.at(8).bytes == round(100e6 * 2 + 8 * 90e6 * 2 * LIVE)


def test_a_network_without_all_values_is_skipped(table: Path) -> None:
    assert set(timm_profiles(table, "rtx-3090")) == {"small", "large"}


def test_a_cpu_batch_takes_its_samples_share(tmp_path: Path) -> None:
    path = tmp_path / "benchmark-infer-fp32-nchw-pt240-cpu-i9.csv"
    path.write_text(HEAD + "small,224,100,10,1,10,1,2\n")
    found = timm_profiles(path, "cpu-14-cores")["small"]
    assert [(p.batch_size, p.seconds) for p in found.points] == [(b, pytest.approx(b / 100)) for b in (1, 8, 32, 128)]


def test_a_wrong_file_or_name_is_one_line(tmp_path: Path, table: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    for path, names, message in (
        (tmp_path / "x.csv", None, "is not a timm table"),
        (tmp_path / "absent.csv", None, "cannot read .*absent.csv"),
        (table, ["resnet"], "no complete row for network 'resnet'"),
    ):
        with pytest.raises(LibraryError, match=message):
            timm_profiles(path, "gpu", names)


def test_every_row_of_the_published_tables_fits_the_card_it_ran_on(shared_data: Path) -> None:
    folder = shared_data / "predictions" / "timm"
    found = timm_profiles(folder / "benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv", "rtx-3090")
    assert len(found) > 1000
    assert all(p.points[-1].bytes + p.base <= CARD for p in found.values())
    assert len(timm_profiles(folder / "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv", "cpu")) > 1000
