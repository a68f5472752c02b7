"""The page at `/` in a real browser: drop a picture, see the prediction."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ripieno.server import ServerHandle, start_in_thread
from ripieno.types import Bundle
from tests.chromium import COMMAND, Page
from tests.server.stand_in import CLASSES, MEMBERS, direct_answers, write_small_bundle
from tests.server.test_image_endpoint import png

DROP = """
(() => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "x.png", { type: "image/png" }));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
})()
"""


@pytest.fixture(scope="module")
def page(server: ServerHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if COMMAND is None:
        pytest.skip("needs Chromium, which is not installed")
    with Page(server.url + "/", tmp_path_factory.mktemp("chromium")) as page:
        yield page


def drop(page: Page, content: bytes) -> None:
    page.run(DROP % base64.b64encode(content).decode())


def rows(page: Page, table: str) -> list[str]:
    text = page.run(f"[...document.querySelectorAll('#{table} th')].map((cell) => cell.textContent)")
    assert isinstance(text, list)
    return text


def test_a_dropped_picture_is_answered_with_classes_votes_and_spread(
    page: Page, bundle: Bundle, images: NDArray[np.uint8]
) -> None:
    for image in images[:2]:
        page.run("document.getElementById('answer').hidden = true")
        drop(page, png(image))
        page.until("!document.getElementById('answer').hidden")
        each = direct_answers(bundle, image[None])[:, 0]
        mean = each.mean(axis=0)
        assert page.run("document.getElementById('label').textContent") == CLASSES[mean.argmax()]
        assert rows(page, "classes") == [CLASSES[i] for i in np.argsort(-mean)]
        votes = [f"{m}: {CLASSES[i]}" for m, i in zip(MEMBERS, each.argmax(axis=1), strict=True)]
        assert rows(page, "members") == votes
        assert 0 <= float(page.run("document.getElementById('spread').textContent")) <= 1
        page.until("document.getElementById('shown').naturalWidth === 8")


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_the_page_shows_labels_and_values(kind: str, images: NDArray[np.uint8], tmp_path: Path) -> None:
    if COMMAND is None:
        pytest.skip("needs Chromium, which is not installed")
    bundle = write_small_bundle(tmp_path / "bundle", kind=kind, thresholds=(0.0, 0.0, 1.0, 1.0))
    with start_in_thread(bundle) as running, Page(running.url + "/", tmp_path / "chromium") as page:
        drop(page, png(images[0]))
        page.until("!document.getElementById('answer').hidden")
        shown = page.run("document.getElementById('label').textContent")
        assert rows(page, "classes") == list(CLASSES)
        assert len(rows(page, "members")) == len(MEMBERS)
    assert shown == "cat|dog" if kind == "multilabel" else shown.startswith("cat ")


def test_what_is_no_picture_is_said_on_the_page(page: Page) -> None:
    drop(page, b"hello")
    page.until("document.getElementById('error').textContent !== ''")
    assert "is not a picture" in page.run("document.getElementById('error').textContent")
    assert page.run("document.getElementById('answer').hidden")


def test_a_file_may_be_chosen_instead(page: Page, images: NDArray[np.uint8], tmp_path: Path) -> None:
    (tmp_path / "chosen.png").write_bytes(png(images[0]))
    document = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    page.call("DOM.setFileInputFiles", files=[str(tmp_path / "chosen.png")], nodeId=node)
    page.until("!document.getElementById('answer').hidden")
    assert page.run("document.getElementById('error').textContent") == ""
