"""Pictures over HTTP: as bodies and in forms; decompression bombs and corrupt files are refused."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ripieno.server.http_errors import HttpError
from ripieno.server.image_endpoint import picture_to_sample
from ripieno.types import Bundle, Input
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers


def png(image: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def png_with_size(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes with a header of `width` x `height` pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_a_png_is_answered_in_words(http: httpx.Client, bundle: Bundle, images: NDArray[np.uint8]) -> None:
    said = http.post("/predict?members=true&top=2", content=png(images[0]), headers={"content-type": "image/png"})
    each = direct_answers(bundle, images[:1])[:, 0]
    mean = each.mean(axis=0)
    answer = said.json()["predictions"][0]
    assert answer["label"] == CLASSES[mean.argmax()]
    assert answer["probability"] == pytest.approx(float(mean.max()), abs=1e-6)
    assert list(answer["classes"]) == [CLASSES[i] for i in np.argsort(-mean)[:2]]
    assert [m["member"] for m in answer["members"]] == list(MEMBERS)
    assert [m["label"] for m in answer["members"]] == [CLASSES[i] for i in each.argmax(axis=1)]
    assert answer["spread"] >= 0


def test_a_form_of_several_files_is_answered_in_order(
    http: httpx.Client, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    files = [("picture", (f"{i}.png", png(image), "image/png")) for i, image in enumerate(images)]
    said = http.post("/v2/models/ensemble/images", files=files).json()
    assert [p["picture"] for p in said["predictions"]] == [f"{i}.png" for i in range(5)]
    labels = [CLASSES[i] for i in direct_answers(bundle, images).mean(axis=0).argmax(axis=1)]
    assert [p["label"] for p in said["predictions"]] == labels


def test_a_member_alone_names_no_members(http: httpx.Client, images: NDArray[np.uint8]) -> None:
    said = http.post(f"/v2/models/{MEMBERS[0]}/images", content=png(images[0])).json()
    assert "members" not in said["predictions"][0]
    refused = http.post(f"/v2/models/{MEMBERS[0]}/images?members=true", content=png(images[0]))
    assert refused.status_code == 400


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("shape", [(8, 8, 3), (40, 30, 3), (9, 100), (20, 20, 4), (1, 1)])
def test_pictures_of_any_size_and_kind_become_samples(kind: str, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    if kind == "JPEG" and shape[-1] == 4:
        image = image[..., :3]
    for wanted in (Input((8, 8, 3)), Input((8, 8, 1)), Input((6, 10, 3)), Input((8, 8, 1), "float32")):
        sample = picture_to_sample(png(image, kind), "x", wanted, 10**6)
        assert (sample.shape, str(sample.dtype)) == (wanted.shape, wanted.dtype)


BAD: dict[str, tuple[str, Any, int]] = {
    "nothing": ("", b"", 400),
    "no picture": ("", b"hello", 415),
    "a script": ("", b"<?php system($_GET['x']); ?>", 415),
    "half a picture": ("", png(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))[:3000], 400),
    "another format": ("", png(np.zeros((8, 8, 3), np.uint8), "BMP"), 415),
    "a bomb": ("", png_with_size(60_000, 60_000), 413),
    "a smaller bomb": ("", png_with_size(10_000, 10_000), 413),
    "a wrong header": ("", png_with_size(1000, 1000), 400),
    "top no number": ("?top=many", png(np.zeros((8, 8, 3), np.uint8)), 400),
    "top 0": ("?top=0", png(np.zeros((8, 8, 3), np.uint8)), 400),
    "members no boolean": ("?members=all", png(np.zeros((8, 8, 3), np.uint8)), 400),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_what_is_no_good_picture_is_refused_in_one_line(http: httpx.Client, case: tuple[str, Any, int]) -> None:
    query, content, status = case
    response = http.post("/predict" + query, content=content)
    assert response.status_code == status, response.text
    assert len(response.json()["error"].splitlines()) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"nonsense"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x--"),
        ("multipart/form-data; boundary=\xff", b"--\xff\r\n\r\n"),
    ],
)
def test_a_broken_form_is_refused(http: httpx.Client, kind: str, body: bytes) -> None:
    response = http.post("/predict", content=body, headers={"content-type": kind.encode("latin-1")})
    assert response.status_code == 400
    assert len(response.json()["error"].splitlines()) == 1


def test_too_many_pictures_are_refused(http: httpx.Client) -> None:
    one = png(np.zeros((8, 8, 3), np.uint8))
    response = http.post("/predict", files=[("p", (f"{i}.png", one)) for i in range(257)])
    assert response.status_code == 400
    assert "Maximum number of files is 256" in response.json()["error"]


def test_models_of_other_tensors_take_no_pictures() -> None:
    with pytest.raises(HttpError, match="not a picture"):
        picture_to_sample(png(np.zeros((8, 8, 3), np.uint8)), "x", Input((8, 8, 3), "float32"), 10**6)


def test_the_page_loads_nothing_from_elsewhere(http: httpx.Client) -> None:
    response = http.get("/")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "http://" not in response.text
    assert "https://" not in response.text


def test_a_picture_of_16_bits_is_answered_as_the_same_with_8(http: httpx.Client) -> None:
    grey = np.random.default_rng(3).integers(0, 256, (8, 8), dtype=np.uint8)
    files = [("p", ("8.png", png(grey))), ("p", ("16.png", png(grey.astype(np.uint16) * np.uint16(257))))]
    eight, sixteen = http.post("/predict", files=files).json()["predictions"]
    assert eight["classes"] == pytest.approx(sixteen["classes"], abs=1e-6)


def test_a_picture_is_scaled_to_floats_of_0_to_1_and_refused_where_no_unit_is_known() -> None:
    image = np.random.default_rng(4).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    unit = picture_to_sample(png(image), "x", Input((8, 8, 3), "float32", (0.0, 1.0)), 10**6)
    assert np.allclose(unit, image / 255, atol=1e-6)
    for wanted in (Input((8, 8, 1), "float32", (0.0, 4000.0)), Input((8, 8, 1), "uint8", (0.0, 1.0))):
        with pytest.raises(HttpError, match=r"x: it.*, but the network was trained on") as refused:
            picture_to_sample(png(image), "x", wanted, 10**6)
        assert refused.value.status == 415


def scanned(size: int, more: int) -> bytes:
    """Return a progressive JPEG with its last scan repeated `more` times, which is still valid."""
    stream = io.BytesIO()
    Image.new("L", (size, size), 128).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * more + b"\xff\xd9"


def test_a_picture_of_a_thousand_scans_is_refused_at_once() -> None:
    wanted = Input((8, 8, 1), "uint8")
    assert picture_to_sample(scanned(64, 0), "a.jpg", wanted, 50_000_000).shape == (8, 8, 1)
    for size, more in ((64, 1200), (6000, 20)):
        data = scanned(size, more)
        begin = time.perf_counter()
        with pytest.raises(HttpError, match="scans") as caught:
            picture_to_sample(data, "a.jpg", wanted, 50_000_000)
        assert caught.value.status == 413
        assert time.perf_counter() - begin < 1


def test_scans_are_counted_in_a_picture_that_calls_itself_one_of_several() -> None:
    """A JPEG with an index of further pictures (MPO, as cameras with two lenses write it) is decoded like others."""
    stream = io.BytesIO()
    Image.new("L", (64, 64)).save(stream, "MPO", save_all=True, append_images=[Image.new("L", (8, 8))])
    several = stream.getvalue()
    begin = several.index(b"\xff\xe2")
    index = several[begin : begin + 2 + int.from_bytes(several[begin + 2 : begin + 4], "big")]
    data = scanned(64, 1200)
    data = data[:2] + index + data[2:]
    assert Image.open(io.BytesIO(data)).format == "MPO"
    with pytest.raises(HttpError, match="scans"):
        picture_to_sample(data, "a.jpg", Input((8, 8, 1), "uint8"), 50_000_000)
